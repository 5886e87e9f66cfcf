// Keys for those who want them: the page works without. A key answers the first open question.
"use strict";
const form = document.querySelector("form");
const questions = [...form.querySelectorAll("fieldset")];
const answered = (question) => question.querySelector(":checked");

function answer(choice) {
  choice.checked = true;
  choice.focus();
  const next = questions.find((question) => !answered(question));
  (next || form.querySelector("nav")).scrollIntoView({block: "nearest"});
  if (!next) form.querySelector("button").focus();
}

function takeBack() {
  const last = questions.findLast(answered);
  if (!last) return;
  answered(last).checked = false;
  last.querySelector("input").focus();
  last.scrollIntoView({block: "nearest"});
}

document.addEventListener("keydown", (event) => {
  if (event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
  const key = `[data-key="${CSS.escape(event.key.toLowerCase())}"]`;
  const open = questions.find((question) => !answered(question));
  const choice = open && open.querySelector(`input${key}`);
  const link = form.querySelector(`a${key}`);
  if (choice) answer(choice);
  else if (link) link.click();
  else if (event.key === "Backspace") takeBack();
  else if (event.key === "Enter" && event.target === document.body) form.requestSubmit();
  else return;
  event.preventDefault();
});
