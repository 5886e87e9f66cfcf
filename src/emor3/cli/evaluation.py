"""Commands that ask a model about images: `evaluate` on labelled ones, `predict` on any."""

import json
from pathlib import Path
from typing import Annotated

import typer

from emor3.cli.next_steps import say_next
from emor3.cli.options import (
    DEFAULTS,
    MODEL,
    BatchSize,
    Engine,
    Frames,
    JudgePath,
    Labels,
    Limit,
    MaxNewTokens,
    Output,
    Reflect,
    Seed,
    Temperature,
    Template,
    evaluation_settings,
    refuse_idle,
    usable,
)
from emor3.errors import UserError
from emor3.printing import print_error, say, say_start, show


def evaluate(
    context: typer.Context,
    model: Annotated[str | None, MODEL] = None,
    data: Annotated[
        list[str] | None,
        typer.Option("--data", "-d", help="Data folder or embedded:NAME; repeat for several."),
    ] = None,
    saved: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="PATH",
            help="Recompute the figures of a saved evaluation, without a model; with --data those of another harness's "
            "predictions.",
        ),
    ] = None,
    labels: Labels = None,
    label_field: Annotated[str, typer.Option(help="Field of a row that holds the label.")] = DEFAULTS.label_field,
    split: Annotated[str, typer.Option(help="Split to evaluate, or `all`.")] = "test",
    samples: Annotated[
        int,
        typer.Option(
            callback=usable,
            min=0,
            help="Answers to sample per image at temperature 1, for distributions and calibration.",
        ),
    ] = DEFAULTS.samples,
    reflect: Reflect = False,
    blank: Annotated[
        bool, typer.Option("--blank", help="Show a grey picture in place of every image: a control.")
    ] = DEFAULTS.blank,
    judge: JudgePath = None,
    template: Template = None,
    temperature: Temperature = DEFAULTS.temperature,
    seed: Seed = 0,
    limit: Limit = None,
    max_new_tokens: MaxNewTokens = DEFAULTS.max_new_tokens,
    batch_size: BatchSize = DEFAULTS.batch_size,
    engine: Engine = DEFAULTS.engine,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the stopped evaluation in the output folder.")
    ] = False,
    output: Output = None,
) -> None:
    """Evaluate a checkpoint on labelled images.

    Prints a table and writes evaluation.json, predictions.jsonl and results.json to the output folder. A sample whose
    image cannot be read is named and left out; the status then is 1. A stopped evaluation goes on with --resume after
    its last whole batch. With --from, figures are written over those of the saved evaluation, or beside a copy of it in
    --output. With --from and --data, PATH is what lmms-eval, VLMEvalKit or inspect_ai wrote about a task of ours
    (docs/harnesses.md), and becomes an evaluation of that folder.
    """
    if saved is not None and data:
        taken = {"saved", "data", "output", "split", "labels", "label_field", "template"}
        refuse_idle(context, "with --from, which makes nothing anew", context.params.keys() - taken)
        _import_answers(context, saved, data, output)
    if saved is not None:
        refuse_idle(context, "with --from, which makes nothing anew", context.params.keys() - {"saved", "output"})
        _evaluate_again(saved, output)
        return
    if model is None or not data:
        raise UserError("give --model and --data, or --from with the folder of a saved evaluation")
    _evaluate_anew(context, model, data, judge, output)


def _evaluate_anew(context: typer.Context, model: str, data: list[str], judge: str | None, output: Path | None) -> None:
    say_start("emor3 evaluate")
    from emor3.evaluation import evaluate as evaluation
    from emor3.evaluation.journal import evaluation_folder
    from emor3.evaluation.summary import results_table
    from emor3.runs.predictions import EVALUATION, leaves_out
    from emor3.runs.records import read_json

    asked = context.params
    with evaluation_folder(output, asked["resume"]) as folder:
        candidate = evaluation.load_candidate(model, judge, asked["engine"])
        split = None if asked["split"] == "all" else asked["split"]
        settings = evaluation_settings(context, candidate, split=split)
        evaluations = evaluation.evaluate(candidate, data, settings, folder, resume=asked["resume"])
    show(results_table(model, evaluations, read_json(folder / EVALUATION)))
    say(f"judge of consistency and coherence: {candidate.judge_path}\nwritten to: {folder}")
    say_next("evaluate", folder=folder)
    raise typer.Exit(int(leaves_out(folder)))


def _import_answers(context: typer.Context, path: Path, data: list[str], output: Path | None) -> None:
    """Make an evaluation of what another harness recorded; ends with status 1 if it left samples out."""
    say_start("emor3 evaluate")
    from emor3.hosts.harnesses.answers import import_settings, write_evaluation
    from emor3.hosts.harnesses.readers import read_run
    from emor3.runs.predictions import leaves_out
    from emor3.storage.outputs import fresh_folder

    if len(data) > 1:
        raise UserError(f"--from {path} holds the answers to one data folder: give --data once")
    asked = context.params
    settings = import_settings(asked["split"], asked["labels"], asked["label_field"], asked["template"])
    run = read_run(path)
    folder = fresh_folder(output, "evaluation")
    write_evaluation(run, data[0], settings, folder)
    _evaluate_again(folder, None)
    raise typer.Exit(int(leaves_out(folder)))


def _evaluate_again(path: Path, output: Path | None) -> None:
    say_start("emor3 evaluate")
    from emor3.evaluation.summary import results, results_table, summarise
    from emor3.runs.predictions import RESULTS, copy_evaluation, read_evaluation
    from emor3.storage.locks import held
    from emor3.storage.outputs import fresh_folder, write_json

    evaluation = read_evaluation(path)
    evaluations = [
        summarise(data, predictions, evaluation.thinking) for data, predictions in evaluation.predictions.items()
    ]
    folder = evaluation.folder if output is None else fresh_folder(output, "evaluation")
    with held(folder):
        if output is not None:
            copy_evaluation(evaluation.folder, folder)
        write_json(folder / RESULTS, results(evaluation.head, evaluations))
    show(results_table(evaluation.model, evaluations, evaluation.head))
    from emor3.review.agreement import show_agreement

    show_agreement([evaluation])
    say(f"written to: {folder / RESULTS}")
    say_next("evaluate", folder=folder)


def predict(
    context: typer.Context,
    images: Annotated[list[str], typer.Argument(metavar="IMAGE", help="Image files, video clips, or folders of them.")],
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="Checkpoint: a folder, a hub name, or `embedded`. [default: `embedded`, for its own drawings only]",
        ),
    ] = None,
    labels: Labels = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per image.")] = False,
    judge: JudgePath = None,
    template: Template = None,
    temperature: Temperature = DEFAULTS.temperature,
    seed: Seed = 0,
    max_new_tokens: MaxNewTokens = DEFAULTS.max_new_tokens,
    batch_size: BatchSize = 16,
    engine: Engine = DEFAULTS.engine,
    samples: Annotated[
        int, typer.Option(callback=usable, min=0, help="Completions to sample at temperature 1: their majority counts.")
    ] = DEFAULTS.samples,
    reflect: Reflect = False,
    abstain_below: Annotated[
        float,
        typer.Option(
            callback=usable, min=0.0, max=1.0, help="With --samples: abstain if the leading label has a smaller share."
        ),
    ] = 0.5,
    frames: Frames = None,
) -> None:
    """Label images and show the reasoning behind each label.

    For every image, in order: the label, the three steps, and what the reflection says of them, with probabilities. An
    image that cannot be read fails alone; the status then is 1. Of a video clip frames are shown as one prompt.
    """
    samples = samples or (8 if reflect else 0)
    if samples:
        refuse_idle(context, "with --samples, which are drawn at temperature 1", ["temperature"])
    else:
        refuse_idle(context, "without --samples", ["abstain_below"])
    say_start("emor3 predict")
    from emor3.evaluation import predict as prediction
    from emor3.evaluation.evaluate import load_candidate
    from emor3.storage.clips import FRAMES

    pictures = prediction.pictures_of(images)
    if not any(map(prediction.clip_of, pictures)):
        refuse_idle(context, "without a video clip", ["frames"])
    model = prediction.model_for(model, pictures)
    candidate = load_candidate(model, judge, engine)
    settings = evaluation_settings(context, candidate, labels=None, samples=samples)
    label_set = prediction.choose_labels(candidate, labels)
    if note := prediction.caution(model, pictures):
        say(note, error=True)
    failed = False
    for image, outcome in prediction.predict(
        candidate, pictures, label_set, settings, abstain_below, frames=FRAMES if frames is None else frames
    ):
        failed = failed or isinstance(outcome, UserError)
        if as_json:
            say(json.dumps(prediction.outcome_row(str(image), outcome)))
        elif isinstance(outcome, UserError):
            print_error(outcome)
        else:
            say(prediction.prediction_text(outcome.prediction))
            if outcome.decision is not None:
                say(prediction.decision_text(outcome.decision))
    say_next("predict", model=model)
    raise typer.Exit(int(failed))
