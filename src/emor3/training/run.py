"""`emor3 train`: load, cold start, GRPO with reflection, records and checkpoints; resumes bit for bit."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict
from functools import cache, partial
from itertools import chain
from pathlib import Path
from random import Random

import torch
from accelerate import PartialState
from peft import LoraConfig
from transformers import PreTrainedModel, PrinterCallback, ProcessorMixin, TrainerCallback
from trl import GRPOConfig

from emor3.data.folders import LazySamples, drawn_folders
from emor3.data.prompt_lengths import check_context, warn_of_many_labels
from emor3.errors import UserError, refused_by
from emor3.heldout.figures import COMPLETION_TOKENS, Measurement, checks_on
from emor3.heldout.samples import held_out
from emor3.judges.build import build_average, build_judge, recorded_judge, with_self_answer
from emor3.judges.calibration import calibrate, start_figures
from emor3.judges.group_signal import GROUP, group_signal
from emor3.judges.local import evaluating
from emor3.judges.moving_average import MovingAverage
from emor3.method.rewards import check_thinking
from emor3.method.thinking import parse, sample_prompt
from emor3.method.types import Aspect, EmotionalThought, Judge, Sample
from emor3.models.architectures import limit_pixels
from emor3.models.checkpoints import (
    check_quantizable,
    freeze,
    frozen_modules,
    load,
    merge,
    resolve_checkpoint,
    save,
    vision_is_frozen,
)
from emor3.models.generation import complete_samples, said_by
from emor3.models.packing.blocks import set_attention
from emor3.models.settings import ModelBlock
from emor3.models.sharding import (
    check_resumable,
    check_shardable,
    run_vision_on_all_ranks,
    sharded,
    whole_weights,
)
from emor3.printing import hide_idle_warnings, say
from emor3.progress import alive
from emor3.runs import directory
from emor3.runs.checkpoint_marks import check_checkpoint, check_cold_start, checkpoint_to_resume, mark_complete
from emor3.runs.directory import BEST, COLD_START, COMPLETE, FINAL, JUDGE, START
from emor3.runs.evaluations import best_text, check_same_samples
from emor3.runs.recipe import Recipe
from emor3.scoring.own import OwnCode, OwnJudge, RewardPart, recorded_parts
from emor3.storage.locks import held
from emor3.storage.outputs import replacing, write_json
from emor3.tiny.perception import DrawnTruth
from emor3.training.callbacks import HeldOutEvaluation, MovingWeights, RunCallback, StopOnNonFinite
from emor3.training.cold_start import cold_start
from emor3.training.dataset import check_rows, chosen_samples, manifest_sums, prompt_dataset, training_order
from emor3.training.scorer import BatchScorer, Recorder, part_rewards
from emor3.training.stopping import LastStep, report_failures
from emor3.training.trainer import EmoTrainer
from emor3.training.trl_config import check_trackers, grpo_config, steps_per_cycle


def train(
    recipe: Recipe,
    *,
    resume: bool = False,
    overwrite: bool = False,
    from_checkpoint: int | None = None,
    judge: Judge | None = None,
    own: Mapping[str, RewardPart] | None = None,
) -> Path:
    """Run a recipe; returns the run directory, with the trained policy under `final/`.

    A resumed run continues from its newest complete checkpoint, or from that of the step `from_checkpoint`, and ends as
    if it had never stopped. A run that is overwritten stays until the new one has its first checkpoint.
    A `judge` of one's own takes the place of the policy as judge, and `own` holds the functions of `reward.own` by
    their names; the run records both (`emor3.scoring.own`), and is resumed with the same ones only.
    Raises UserError for settings or data it cannot use and for what ends it too soon (a loss that is not finite, no
    memory, a full disk, a judge that fails), and Stopped on SIGINT and SIGTERM; each says how to go on.
    """
    hide_idle_warnings()  # here too, for those who call it from Python
    code = OwnCode(own or {}, None if judge is None else OwnJudge(judge))
    recorded = {"reward": recorded_parts(recipe.reward, code.parts), "judge": recorded_judge(recipe.judge, code.judge)}
    recipe = recipe.model_copy(update=recorded)
    with report_failures(Path(recipe.output_dir)):
        going_on = resume or from_checkpoint is not None
        return _train(recipe, code, resume=going_on, overwrite=overwrite, step=from_checkpoint)


def _train(recipe: Recipe, code: OwnCode, *, resume: bool, overwrite: bool, step: int | None) -> Path:
    samples = chosen_samples(recipe)
    state = PartialState(cpu=not torch.accelerator.is_available())
    run = Path(recipe.output_dir)
    config = checked_settings(recipe, samples)
    evaluation = _held_out_evaluation(recipe, run, config, samples)
    sums = manifest_sums(recipe) if state.is_main_process else []
    with _alone(run):
        checkpoint = _checked_run(recipe, sums, resume=resume, overwrite=overwrite, step=step)
        if resume and evaluation is not None:
            check_same_samples(run, evaluation.record)
        if resume and step is None and (run / FINAL).is_dir() and _is_finished(run, config, checkpoint):
            if state.is_main_process:
                say(f"{run} is finished, nothing is left to do: its policy lies in {run / FINAL}")
            return run
        begin = cache(partial(_begin, recipe, sums, resume, checkpoint))
        only = evaluation if recipe.grpo is None else None  # of the cold start; else the stage after it is evaluated
        start = _cold_started(recipe, run, samples, resume, begin, only) if recipe.cold_start else recipe.model.path
        model, processor = load_policy(recipe, start, checkpoint)
        if state.is_main_process:
            warn_of_many_labels(processor, max((source.labels.labels for source in samples.sources), key=len))
        if config is not None:
            turns = ((s, sample_prompt(s, recipe.prompt_template), config.max_completion_length or 0) for s in samples)
            check_context(model, processor, turns)
            if evaluation is not None:
                evaluation.measurement.check_fit(model, processor)
            _reinforce(recipe, code, run, config, samples, model, processor, checkpoint, begin, evaluation)
        else:
            begin()
            if state.is_main_process:
                _save_final(run, model, processor)
        if state.is_main_process and (best := best_text(run)):
            say(f"{best}, in {run / BEST}")
    return run


def checked_settings(recipe: Recipe, samples: Sequence[Sample]) -> GRPOConfig | None:
    """TRL's settings, if the recipe has any, for training on its `chosen_samples`.

    Finds whatever a person may have mistyped, before anything is written: raises UserError for what cannot be used.
    """
    resolve_checkpoint(recipe.model.path)
    if recipe.judge.path is not None:
        resolve_checkpoint(recipe.judge.path)
    if recipe.model.quantize is not None:
        check_quantizable()
    sample_prompt(samples[0], recipe.prompt_template)
    check_thinking(recipe.reward, recipe.thinking, recipe.prompt_template)
    check_rows(samples, recipe)
    if recipe.grpo is None:
        return None
    config = grpo_config(recipe, Path(recipe.output_dir), len(samples))
    check_trackers(config)
    return config


def _held_out_evaluation(
    recipe: Recipe, run: Path, config: GRPOConfig | None, samples: LazySamples
) -> HeldOutEvaluation | None:
    """What evaluates the policy as it learns, if the recipe asks for that. Raises UserError for what cannot be."""
    settings = recipe.evaluation
    if settings is None:
        return None
    found = held_out(recipe.data, settings, recipe.seed, samples)
    measurement = Measurement(
        found.samples,
        checks_on(found.samples, found.sources, recipe.thinking, settings.metric),
        recipe.thinking,
        recipe.prompt_template,
        max_new_tokens=(config and config.max_completion_length) or COMPLETION_TOKENS,
        batch_size=_rows_at_once(recipe, config),
    )
    return HeldOutEvaluation(run, settings, found, measurement)


def _rows_at_once(recipe: Recipe, config: GRPOConfig | None) -> int:
    """Completions that training makes, or learns from, at once on each process: as many fit in an evaluation."""
    if config is not None:
        return int(config.per_device_train_batch_size * config.steps_per_generation)
    assert recipe.cold_start is not None
    return recipe.cold_start.batch_size


@contextmanager
def _alone(run: Path) -> Iterator[None]:
    """Keep the run for the ranks of this process group, and leave nothing of it behind if it never began."""
    with held(run) if PartialState().is_main_process else nullcontext():
        try:
            yield
        finally:
            with suppress(OSError):
                (run / directory.CHECKPOINTS).rmdir()  # made by TRL, and empty before the first checkpoint


def _checked_run(
    recipe: Recipe, sums: Sequence[str], *, resume: bool, overwrite: bool, step: int | None
) -> Path | None:
    """The checkpoint to go on from, once the main process found all that resume reads as it was written.

    Raises UserError if it is not, or if the flags do not allow to write to the folder.
    """
    run, state = Path(recipe.output_dir), PartialState()
    if state.is_main_process:
        directory.check_run(recipe, resume=resume, overwrite=overwrite, data=sums)
    state.wait_for_everyone()
    checkpoint = checkpoint_to_resume(run, step) if resume else None
    if state.is_main_process and checkpoint is not None:
        check_checkpoint(run, checkpoint)
    if state.is_main_process and resume:
        check_cold_start(run / COLD_START)
    state.wait_for_everyone()
    return checkpoint


def _is_finished(run: Path, config: GRPOConfig | None, checkpoint: Path | None) -> bool:
    """Whether a run that has a trained policy took all its steps. Raises UserError if none can follow."""
    if config is None:
        return True
    saved = directory.checkpoint_step(checkpoint) if checkpoint else 0
    if max(saved, directory.steps_recorded(run)) >= config.max_steps:
        return True
    if checkpoint is None:
        raise UserError(
            f"{run} has a trained policy and no checkpoint to go on from: train anew with --overwrite, or start from "
            f"{run / FINAL} with another --output"
        )
    return False


def _begin(recipe: Recipe, sums: Sequence[str], resume: bool, checkpoint: Path | None) -> None:
    """Make the run directory ready, for all ranks."""
    if PartialState().is_main_process:
        done = directory.checkpoint_step(checkpoint) if checkpoint else _supervised_steps(recipe)
        run = directory.begin_run(recipe, resume=resume, last_step=done, data=sums)
        (run / directory.CHECKPOINTS).mkdir(exist_ok=True)
    PartialState().wait_for_everyone()


def _supervised_steps(recipe: Recipe) -> int:
    """Steps that a run without reinforcement has behind it: all if its cold start is whole, else none."""
    whole = (Path(recipe.output_dir) / COLD_START / COMPLETE).is_file()
    return recipe.cold_start.steps if recipe.cold_start and recipe.grpo is None and whole else 0


def load_policy(recipe: Recipe, start: str, checkpoint: Path | None) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Model and processor to train, its weights from the checkpoint when a run goes on.

    `Trainer.train(resume_from_checkpoint=…)` restores none of some models' tensors and only warns, hence
    `from_pretrained`; adapters it does restore. The name stays the start model's: TRL loads the KL reference by it.
    """
    resumed = str(checkpoint) if checkpoint and recipe.model.lora is None else None
    dtype = "float32" if recipe.model.lora is None else recipe.model.dtype  # those that learn, see learn_in_float32
    model, processor = load(resumed or start, dtype, recipe.model.quantize)
    if resumed:
        model.config._name_or_path = resolve_checkpoint(start)
    if recipe.model.attention is not None:
        set_attention(model, recipe.model.attention)
    if recipe.model.max_pixels is not None:
        limit_pixels(processor, recipe.model.max_pixels)
    freeze(model, recipe.model.freeze)
    return model, processor


def lora_config(model: ModelBlock) -> LoraConfig | None:
    """peft's settings of a recipe's LoRA block; frozen parts get no adapters."""
    lora = model.lora
    if lora is None:
        return None
    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        exclude_modules=frozen_modules(model.freeze),
    )


def _cold_started(
    recipe: Recipe,
    run: Path,
    samples: Sequence[Sample],
    resume: bool,
    begin: Callable[[], None],
    evaluation: HeldOutEvaluation | None,
) -> str:
    """Folder of the cold-started policy, made on first use: from here on it is the start model and the KL reference."""
    assert recipe.cold_start is not None
    folder = run / COLD_START
    if not (resume and (folder / COMPLETE).is_file()):
        model, processor = load_policy(recipe, recipe.model.path, None)
        run_vision_on_all_ranks(_seen(samples, evaluation), processor, model)
        if evaluation is not None:
            evaluation.measurement.check_fit(model, processor)
        settings, template, lora = recipe.cold_start, recipe.prompt_template, lora_config(recipe.model)
        tuned, weights = cold_start(model, processor, samples, settings, template, recipe.seed, lora, begin, evaluation)
        if PartialState().is_main_process:
            save(merge(tuned, recipe.model.path, recipe.model), processor, folder, weights)
            mark_complete(folder)
        PartialState().wait_for_everyone()
    return str(folder)


def _seen(samples: Iterable[Sample], evaluation: HeldOutEvaluation | None) -> Iterator[Sample]:
    """All samples that a run computes on."""
    return chain(samples, evaluation.measurement.samples if evaluation else ())


def _reinforce(
    recipe: Recipe,
    code: OwnCode,
    run: Path,
    config: GRPOConfig,
    samples: Sequence[Sample],
    model: PreTrainedModel,
    processor: ProcessorMixin,
    checkpoint: Path | None,
    begin: Callable[[], None],
    evaluation: HeldOutEvaluation | None,
) -> None:
    """Train with GRPO from the checkpoint, or from the start, and save the trained policy."""
    average = build_average(
        recipe.judge,
        model,
        lora=recipe.model.lora is not None,
        checkpoints=run / directory.CHECKPOINTS,
        checkpoint=checkpoint,
    )
    progress = RunCallback(run, processor, config.save_total_limit)
    config.save_total_limit = None  # TRL would remove the old checkpoint before the new one is marked as whole
    last_step = LastStep(run, steps_per_cycle(config))
    # The average saves first: then the checkpoint is marked as whole.
    callbacks = [*([average] if average else []), progress, last_step, StopOnNonFinite(), MovingWeights()]
    scorer = BatchScorer(
        recipe.thinking,
        recipe.reward,
        config.num_generations,
        lambda: judge,  # which may need the trainer that is made with these rewards
        Recorder(run, config.num_generations),
        seed=recipe.seed,
        steps=config.max_steps,
        own=code.parts,
        said=said_by(processor, recipe.thinking),
    )
    trainer = _trainer(recipe, config, samples, model, processor, scorer, callbacks)
    run_vision_on_all_ranks(_seen(samples, evaluation), processor, model, trainer.ref_model)
    if evaluation is not None:
        evaluation.follow(trainer, trainer.evaluating_aside)
    if checkpoint:
        check_resumable(trainer, checkpoint)
    judge_model, judge_processor = _judge_model(recipe, trainer, average)
    # What it cannot use is refused before the run begins.
    judge = _judge(recipe, code, trainer, judge_model, judge_processor)
    if vision_is_frozen(trainer.model):
        trainer.encode_images_once(*([] if recipe.judge.model == "checkpoint" else [judge_model]))
    begin()
    if recipe.judge.calibration and not (run / START).is_file():
        with alive("start model and judge, tried on training images"):
            _try_before_start(recipe, run, judge, trainer, samples)
    with progress.progress, last_step.saved_on_failure(trainer):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if progress.seconds and trainer.accelerator.is_main_process:
        say(progress.time_split())
    _save_trained(recipe, run, trainer)


def _trainer(
    recipe: Recipe,
    config: GRPOConfig,
    samples: Sequence[Sample],
    model: PreTrainedModel,
    processor: ProcessorMixin,
    scorer: BatchScorer,
    callbacks: Sequence[TrainerCallback],
) -> EmoTrainer:
    """TRL's trainer of the policy, its KL reference beside it. Raises UserError for what TRL or the shards refuse."""
    prompts = config.generation_batch_size // config.num_generations
    order = training_order(len(samples), math.ceil(config.max_steps / steps_per_cycle(config)) * prompts, recipe.seed)
    functions, config.reward_weights = part_rewards(scorer)
    with refused_by("TRL"):
        trainer = EmoTrainer(
            model=model,
            args=config,
            reward_funcs=functions,
            train_dataset=prompt_dataset(samples, recipe.prompt_template, order, processor),
            processing_class=processor,
            callbacks=[*callbacks],
            peft_config=lora_config(recipe.model),
            dynamic_sampling=recipe.dynamic_sampling,
        )
    trainer.remove_callback(PrinterCallback)  # prints every step's figures; they are in metrics.jsonl and the bar
    check_shardable(trainer, ema=recipe.judge.model == "ema")
    if trainer.ref_model is not None and recipe.model.dtype != "auto" and not sharded(trainer):
        trainer.ref_model.to(getattr(torch, recipe.model.dtype))  # does not learn
    return trainer


def _judge_model(
    recipe: Recipe, trainer: EmoTrainer, average: MovingAverage | None
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """The local model that judges; the policy if it is none. The KL reference serves without another copy.

    With its processor, which is the policy's unless the model is another one.
    """
    if recipe.judge.path is not None:
        return load(recipe.judge.path, recipe.model.dtype)
    if recipe.judge.model == "reference":
        start = trainer.model.config._name_or_path
        return trainer.ref_model or load(start, recipe.model.dtype, recipe.model.quantize)[0], trainer.processing_class
    return trainer.model if average is None else average.model, trainer.processing_class


def _judge(
    recipe: Recipe, code: OwnCode, trainer: EmoTrainer, model: PreTrainedModel, processor: ProcessorMixin
) -> Judge:
    """Who answers the two questions, by the local model that judges if no server and no judge of one's own does."""
    vllm = trainer.vllm_generation if trainer.use_vllm else None
    judge = build_judge(recipe.judge, model, processor, vllm, code.judge)
    return with_self_answer(judge, recipe.judge, trainer.model, trainer.processing_class, vllm)


def _try_before_start(
    recipe: Recipe,
    run: Path,
    judge: Judge,
    trainer: EmoTrainer,
    samples: Sequence[Sample],
) -> None:
    """Say what the start model does on some training images, and how well the judge sees; kept in the run."""
    places = Random(recipe.seed).sample(range(len(samples)), min(recipe.judge.calibration, len(samples)))
    chosen, aspects = [samples[place] for place in places], recipe.reward.aspects
    turns = list(_first_completions(recipe, trainer, chosen, GROUP if aspects else 1))
    figures = start_figures(chosen, turns[0], trainer.args.temperature)
    swapped = calibrate(judge, chosen, turns[0]) if Aspect.CONSISTENCY in aspects else None
    drawn = DrawnTruth(drawn_folders(recipe.data.folders))
    groups = list(zip(*turns, strict=True))
    within = group_signal(judge, chosen, groups, recipe.reward, drawn.describes) if aspects else None
    if not trainer.accelerator.is_main_process:
        return
    say(figures.line())
    if swapped is None and Aspect.CONSISTENCY in aspects:
        say("judge: not tried, the start model gave no two different descriptions that it could judge")
    found = [finding for finding in (swapped, within) if finding is not None]
    for finding in found:
        say(finding.line())
    if found:
        write_json(run / JUDGE, {key: value for finding in found for key, value in asdict(finding).items()})
    write_json(run / START, asdict(figures))


def _first_completions(
    recipe: Recipe, trainer: EmoTrainer, samples: Sequence[Sample], turns: int
) -> Iterator[list[EmotionalThought]]:
    """Completions of the start model, one for each of N samples in each turn; training's random numbers stay."""
    said = said_by(trainer.processing_class, recipe.thinking)
    for turn in range(turns):
        with evaluating(trainer.model):
            texts = complete_samples(
                trainer.model,
                trainer.processing_class,
                samples,
                recipe.prompt_template,
                max_new_tokens=trainer.args.max_completion_length,
                temperature=trainer.args.temperature,
                seed=recipe.seed + turn,
            )
        yield [parse(said(text), recipe.thinking) for text in texts]


def _save_trained(recipe: Recipe, run: Path, trainer: EmoTrainer) -> None:
    """Save the policy with its adapters merged. All ranks must call this: shards are gathered from them."""
    weights = whole_weights(trainer)
    if trainer.accelerator.is_main_process:
        policy = trainer.accelerator.unwrap_model(trainer.model)
        _save_final(run, merge(policy, policy.config._name_or_path, recipe.model), trainer.processing_class, weights)


def _save_final(
    run: Path, model: PreTrainedModel, processor: ProcessorMixin, weights: Mapping[str, torch.Tensor] | None = None
) -> None:
    """Save the trained policy so that `final/` is whole wherever it is found."""
    with replacing(run / FINAL) as folder:
        save(model, processor, folder, weights)
    directory.drop_replaced(run)
