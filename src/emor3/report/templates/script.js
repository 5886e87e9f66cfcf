"use strict";
// Gallery and rollouts from the JSON of the page. Text from models and data only ever becomes text nodes.
const cards = JSON.parse(document.getElementById("cards").textContent);
const byId = (id) => document.getElementById(id);
const PAGE = 12;

function element(name, text, className) {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

function fill(select, options) { // options: [value, text]; keeps the choice where it is still there
  const before = select.value;
  select.replaceChildren(...options.map(([value, text]) => new Option(text, value)));
  if (options.some(([value]) => String(value) === before)) select.value = before;
}

function bars(place, title, shares) {
  const entries = Object.entries(shares || {}).filter(([, share]) => share > 0).sort((a, b) => b[1] - a[1]);
  if (!entries.length) return;
  const list = element("ul", "", "bars");
  for (const [name, share] of entries) {
    const item = document.createElement("li"), bar = document.createElement("i");
    bar.style.setProperty("--share", `${Math.min(100, 100 * share)}%`);
    item.append(element("span", name), bar, element("span", `${Math.round(100 * share)}%`));
    list.append(item);
  }
  place.append(element("p", title), list);
}

const VERDICTS = { supported: "supported", refuted: "not supported", unreadable: "reply unreadable", not_asked: "not asked" };
function said(found) {
  return Object.entries(found.likely).map(([name, share]) => `${name} ${(100 * share).toFixed(1)}%`).join(", ") || found.reply;
}
function finding(list, title, found) {
  if (!found) return;
  const reply = found.reply === null ? found.reason : said(found);
  list.append(element("dt", title), element("dd", `${VERDICTS[found.verdict] || found.verdict}: ${reply}`));
  const others = found.others.filter((other) => other.reply !== null).map(said);
  if (others.length) list.append(element("dt", "Does it describe other samples, too?"), element("dd", others.join("; ")));
}

function cardOf(card, title, outcome) {
  const made = byId("card").content.cloneNode(true);
  made.querySelector("h4").textContent = title;
  made.querySelector(".outcome").append(...outcome.map((name) => element("span", name, `is-${name}`)));
  if (card.answer !== null) made.querySelector(".outcome").append(`answers ${card.answer}`);
  if (card.steps.some((step) => step !== null)) made.querySelector("ol").append(...card.steps.map((step) => element("li", step ?? "(no such step)")));
  if (card.completion !== null) {
    const raw = made.querySelector("pre");
    raw.textContent = (card.problem ? `format broken (${card.problem}):\n` : "") + card.completion;
    raw.hidden = false;
  }
  const findings = made.querySelector(".findings");
  finding(findings, "Does step 1 describe what is shown?", card.consistency);
  finding(findings, "Which emotion do steps 1 and 2 convey?", card.coherence);
  bars(made.querySelector(".sampled"), "Sampled answers", card.sampled);
  return made;
}

function itemOf(item, shown) {
  const made = byId("item").content.cloneNode(true);
  made.querySelector(".pictures").append(...item.pictures.map((key) => {
    const image = document.createElement("img");
    image.src = cards.pictures[key];
    image.alt = `image labelled ${item.label}`;
    image.classList.toggle("small", image.src.startsWith("data:image/png"));
    return image;
  }));
  made.querySelector(".text").textContent = item.text ?? "";
  made.querySelector(".none").hidden = item.pictures.length > 0 || item.text !== null;
  made.querySelector(".id").textContent = item.id;
  made.querySelector(".truth").textContent = `true label: ${item.label}`;
  bars(made.querySelector(".votes"), "Votes of viewers", item.votes);
  made.querySelector(".cards").append(...shown);
  return made;
}

function setUpGallery() {
  const [set, left, right, outcome, label] = ["set", "left", "right", "outcome", "label"].map((name) => byId(`gallery-${name}`));
  let limit = PAGE;
  fill(set, cards.sets.map((found, place) => [place, found.data]));
  fill(outcome, [["", "any"], ...cards.outcomes.map((name) => [name, name])]);

  function chooseSet() {
    const found = cards.sets[set.value];
    const models = found.evaluations.map((place) => [place, cards.evaluations[place]]);
    fill(left, models);
    fill(right, [["", "none"], ...models]);
    fill(label, [["", "any"], ...found.labels.map((name) => [name, name])]);
  }

  function show() {
    const found = cards.sets[set.value];
    const items = found.items.filter((item) => {
      const card = item.cards[left.value];
      return card && (!label.value || item.label === label.value) && (!outcome.value || card.outcomes.includes(outcome.value));
    });
    byId("gallery-items").replaceChildren(...items.slice(0, limit).map((item) => itemOf(item,
      [left.value, right.value].filter((place) => place !== "" && item.cards[place])
        .map((place) => cardOf(item.cards[place], cards.evaluations[place], item.cards[place].outcomes)))));
    const shown = Math.min(limit, items.length);
    byId("gallery-count").textContent = `Showing ${shown} of ${items.length} that fit. The page holds ${found.items.length} of ${found.total}.`;
    byId("gallery-more").hidden = shown === items.length;
  }

  chooseSet();
  const first = cards.sets[set.value].evaluations;
  left.value = String(first[0]);
  right.value = first.length > 1 ? String(first[first.length - 1]) : "";
  remember([set, left, right, outcome, label], chooseSet);
  show();
  byId("gallery-form").addEventListener("change", (event) => {
    limit = PAGE;
    if (event.target === set) chooseSet();
    show();
  });
  byId("gallery-more").addEventListener("click", () => {
    const before = limit;
    limit += PAGE;
    show();
    const next = byId("gallery-items").children[before].querySelector("h3"); // keep the keyboard where it was
    next.tabIndex = -1;
    next.focus();
  });
}

function setUpRollouts() {
  const run = byId("rollouts-run"), step = byId("rollouts-step");
  fill(run, cards.runs.map((found, place) => [place, found.run]));
  const steps = () => fill(step, [...new Set(cards.runs[run.value].items.map((item) => item.step))].map((n) => [n, n]));

  function show() {
    const items = cards.runs[run.value].items.filter((item) => String(item.step) === step.value);
    byId("rollouts-items").replaceChildren(...items.map((item) => {
      const parts = Object.entries(item.parts || {}).map(([name, value]) => `${name} ${value}`).join(", ");
      return itemOf(item, [cardOf(item.card, `${item.rank}: reward ${item.reward} (${parts})`, [])]);
    }));
    byId("rollouts-count").textContent = `Showing ${items.length} of ${items[0].of} rollouts of step ${step.value}. The page holds ${step.options.length} of ${cards.runs[run.value].steps} steps.`;
  }

  steps();
  remember([run, step], steps);
  show();
  byId("rollouts-form").addEventListener("change", (event) => {
    if (event.target === run) steps();
    show();
  });
}

// Choices outlive a reload, which comes every few seconds while a run is watched.
function remember(selects, follow) {
  if (!document.body.dataset.refresh) return;
  for (const select of selects) {
    const kept = sessionStorage.getItem(select.id);
    if (kept !== null && [...select.options].some((option) => option.value === kept)) select.value = kept;
    if (select === selects[0]) follow();
    select.addEventListener("change", () => sessionStorage.setItem(select.id, select.value));
  }
}

if (cards.sets.length) setUpGallery();
if (cards.runs.length) setUpRollouts();
if (document.body.dataset.refresh) {
  const box = byId("refresh");
  box.checked = sessionStorage.getItem("refresh") !== "off";
  box.addEventListener("change", () => sessionStorage.setItem("refresh", box.checked ? "on" : "off"));
  setInterval(() => { if (box.checked) location.reload(); }, 1000 * document.body.dataset.refresh);
}
