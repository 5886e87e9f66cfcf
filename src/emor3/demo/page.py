"""The page itself, in Gradio: an image and a label set on the left, what the models make of it on the right."""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import gradio as gr

from emor3.demo.looking import (
    MOST_SAMPLES,
    MOST_TYPED,
    DemoSettings,
    another,
    frames_of,
    label_choices,
    look_at,
    typed_labels,
)
from emor3.demo.rendering import fault_html, looks_html, looks_rows
from emor3.errors import UserError, one_line
from emor3.evaluation.candidate import Candidate
from emor3.method.labels import LabelSet
from emor3.models.checkpoints import PACKAGED
from emor3.storage.clips import CLIP_SUFFIXES

HOLD = 3600
"""Seconds after which an upload is deleted also while the demo runs."""
MOST_WAITING = 32
"""Requests that may wait for a model."""
TYPED = "typed"
"""Choice of the labels that a person types."""
STYLE = Path(__file__).with_name("templates") / "style.css"
THEME = gr.themes.Default(  # fonts of the reader's system: Gradio would ask Google for others
    primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
).set(  # of more contrast
    body_text_color_subdued="*neutral_600",
    body_text_color_subdued_dark="*neutral_300",
    button_primary_background_fill="*primary_700",
    button_primary_background_fill_dark="*primary_700",
    block_label_text_color="*neutral_600",
    block_title_text_color="*neutral_700",
    input_placeholder_color="*neutral_500",
    input_placeholder_color_dark="*neutral_400",
)
ANNOUNCE = "element.setAttribute('aria-live', 'polite')"
INTRODUCTION = """# emor3 demo
Which emotion does an image evoke in its viewers, and why? A model answers in three steps and names a label; a judge
says whether step 1 describes the image and whether steps 1 and 2 lead to the label. A label says what viewers may feel,
not what a person shown feels, and what a judge says is a model's opinion."""
TINY = "The embedded models are tiny and have only ever seen drawings: on photographs their answers are near chance."


Shown: TypeAlias = tuple[str, list[dict[str, Any]], str]
"""HTML, JSON and status."""


def build_page(candidates: Sequence[Candidate], settings: DemoSettings, examples: Sequence[Path]) -> gr.Blocks:
    """The page of one or two models, with example images at hand."""
    label_sets = label_choices(candidates[0])
    tiny = any(candidate.path in PACKAGED for candidate in candidates)
    with gr.Blocks(title="emor3 demo", analytics_enabled=False, delete_cache=(60, HOLD)) as page:
        gr.Markdown(f"{INTRODUCTION} {TINY}" if tiny else INTRODUCTION)
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                inputs = [_picture(examples), *_label_set(label_sets)]
                inputs.append(gr.Slider(1, MOST_SAMPLES, value=8, step=1, label="Sampled completions"))
                if find_spec("av") is not None:  # else nothing here decodes a clip
                    inputs.append(_clip())
                ask = gr.Button("Ask" if len(candidates) == 1 else "Ask both", variant="primary")
            with gr.Column(scale=3, min_width=300):
                status = gr.HTML("Choose an image and ask.", elem_id="emor3-status", js_on_load=ANNOUNCE)
                answer = gr.HTML(elem_id="emor3-answer", js_on_load=ANNOUNCE)
                with gr.Accordion("The same as JSON", open=False):
                    rows = gr.JSON(show_label=False)
        gr.on(
            [ask.click, inputs[2].submit],
            looking(candidates, settings, label_sets, examples),
            inputs,
            [answer, rows, status],
            api_name="look",
            show_progress="minimal",
            show_progress_on=[status],
            concurrency_limit=1,  # there is one set of weights, and one generator of random numbers
        )
    return page.queue(max_size=MOST_WAITING)


def _picture(examples: Sequence[Path]) -> gr.Image:
    """The image, and buttons that put a drawing there."""
    picture = _unopened(
        gr.Image(label="Image", sources=["upload", "clipboard"], type="filepath", height=220, buttons=[])
    )
    gr.Markdown("Drawings at hand:")
    with gr.Column(elem_classes="emor3-examples"):
        for path in examples:
            button = gr.Button(path.stem, icon=path, size="sm")
            button.click(partial(str, path), None, picture, api_visibility="private", queue=False)
    return picture


def _clip() -> gr.File:
    """A short video clip, of which frames are shown to the models."""
    with gr.Accordion("Or a short video clip, which counts in place of the image", open=False):
        return _unopened(gr.File(label="Clip", file_types=sorted(CLIP_SUFFIXES), height=120))


def _unopened(upload: Any) -> Any:
    """An upload whose file is handed over by its path, and never fetched from an address."""
    # On this component, not in a class of our own: beside that Gradio would write a file.
    upload.preprocess = _path_of
    upload.async_move_resource_to_block_cache = partial(_held, upload.async_move_resource_to_block_cache)
    return upload


def _path_of(payload: Any) -> str | None:
    """Path of the uploaded file: Gradio would open it before our own limits are checked."""
    return None if payload is None else str(payload.path)


async def _held(keep: Callable[[str | Path | None], Awaitable[str | None]], place: str | Path | None) -> str | None:
    """Have Gradio keep an uploaded file; raises what it shows if a client names an address, which it would fetch."""
    if place is not None and "://" in str(place):
        raise gr.Error("give an image file, not an address: the demo fetches nothing")
    return await keep(place)


def _label_set(label_sets: Mapping[str, LabelSet]) -> tuple[gr.Dropdown, gr.Textbox]:
    """A list of label sets, and a line for labels of one's own."""
    choices = [(one_line(f"{name}: {labels.listed()}"), name) for name, labels in label_sets.items()]
    choices.append(("my own, typed below", TYPED))
    chosen = gr.Dropdown(choices, value=choices[0][1], label="Label set", elem_id="emor3-labels")
    typed = gr.Textbox(
        label="My own labels",
        info="Two or more, with commas between them. They count in place of the list above.",
        placeholder="calm, uneasy",
        max_length=MOST_TYPED,
    )
    return chosen, typed


def looking(
    candidates: Sequence[Candidate],
    settings: DemoSettings,
    label_sets: Mapping[str, LabelSet],
    examples: Sequence[Path],
) -> Callable[..., Iterator[Shown]]:
    """The function behind the button."""

    def look(
        picture: str | None,
        label_set: str,
        labels: str,
        samples: float,
        clip: str | None = None,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 (Gradio's way to ask for one)
    ) -> Iterator[Shown]:
        """What the models make of an image: HTML, JSON, and a line of status, again whenever more is known.

        `label_set` is a name of the list; `labels`, as in "calm, uneasy", count in its place if there are any;
        `samples` is from 1 to 32. A short video `clip` counts in place of the image: four of its frames are shown.
        """
        sampled = 0

        def on_sample(model: str, number: int) -> None:
            nonlocal sampled
            sampled += number
            progress((sampled, len(candidates) * int(samples)), desc=one_line(model), unit="completions")

        try:
            # Nobody who types labels should get an answer among others.
            given = typed_labels(labels) if label_set == TYPED or labels.strip() else label_sets[label_set]
            held = clip or picture
            if held is None or not Path(held).is_file():
                raise UserError("there is no image, or it is no longer held: choose one")
            with TemporaryDirectory() as scratch:
                shown = frames_of(clip, Path(scratch)) if clip else held
                other = another(held, examples)
                for looks in look_at(shown, other, candidates, given, settings, int(samples), on_sample):
                    done = sum(seen.sampled is not None for seen in looks) == len(candidates)
                    yield (
                        looks_html(looks, shown, other, settings),
                        looks_rows(looks),
                        "Done." if done else "Sampling …",
                    )
        except UserError as error:
            yield fault_html(str(error)), [], ""

    return look
