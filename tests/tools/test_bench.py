"""The benchmark counts what really passes through the models, and compares rounds with rounds."""

import multiprocessing
import re
from pathlib import Path

import pytest

from emor3.errors import UserError
from emor3.judges.lockstep import InStepJudge
from emor3.tools.bench.meter import Meter, StepCost, together
from emor3.tools.bench.rounds import Way, bench_step
from emor3.tools.bench.tables import ratios
from emor3.tools.bench.ways import OURS, OURS_BARE, STRAIGHT, TRL, BenchSettings, make_trainer, ways_of
from growth import Collector, Point, plot, to_markdown


@pytest.fixture(scope="module")
def costs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, StepCost]:
    """The second step of each way, for two images with three completions of at most 40 tokens each."""
    settings = BenchSettings(images=2, completions=3, max_tokens=40, rounds=1)
    found = {}
    for way in ways_of(settings):
        collector = Collector()
        folder = tmp_path_factory.mktemp("bench")
        make_trainer(way, settings, str(folder), Meter(collector, 0)).train()
        found[way] = collector.costs[1]
    return found


@pytest.mark.slow
def test_images_are_encoded_once_a_pass_by_us_and_once_a_completion_by_trl(costs: dict[str, StepCost]) -> None:
    # three passes: rollouts, reference, update; 2 images with 3 completions each
    assert costs[TRL].encoded == 3 * 2 * 3
    assert costs[OURS_BARE].encoded == 3 * 2
    assert costs[TRL].processed == 2 * 2 * 3  # rollouts, and again for log-probabilities
    assert costs[OURS_BARE].processed == costs[OURS].processed == 2  # once a step, also for the judge


@pytest.mark.slow
def test_reflection_encodes_each_image_once_more_and_straightforwardly_each_completion(
    costs: dict[str, StepCost],
) -> None:
    assert costs[OURS].encoded - costs[OURS_BARE].encoded in (1, 2)  # one where no completion on the other is readable
    assert 0 < costs[STRAIGHT].encoded - costs[TRL].encoded <= 2 * 3
    assert costs[STRAIGHT].processed - costs[TRL].processed == costs[STRAIGHT].encoded - costs[TRL].encoded
    assert costs[STRAIGHT].positions > costs[TRL].positions > costs[OURS].positions > costs[OURS_BARE].positions


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
def test_every_way_trains_under_checkpointing_if_it_is_asked_for(tmp_path: Path, checkpointing: bool) -> None:
    settings = BenchSettings(images=1, completions=2, checkpointing=checkpointing, rounds=1)
    for way in (TRL, OURS_BARE):
        trainer = make_trainer(way, settings, str(tmp_path), Meter(Collector(), 0))
        assert trainer.args.gradient_checkpointing is checkpointing


def test_ratios_compare_the_ways_within_each_round() -> None:
    seconds = {TRL: [2.0, 4.0], STRAIGHT: [3.0, 8.0], OURS: [1.5, 2.0], OURS_BARE: [1.0, 1.0]}
    found = ratios({way: [StepCost(seconds=s) for s in times] for way, times in seconds.items()}, "seconds")
    assert found == {
        "emor3 / trl": [0.75, 0.5],
        "emor3 without reflection / trl": [0.5, 0.25],
        "straightforward / emor3": [2.0, 4.0],
        "reflection adds to a trl step": [0.25, 0.25],  # (1.5 - 1) / 2 and (2 - 1) / 4
        "straightforward reflection adds to a trl step": [0.5, 1.0],  # (3 - 2) / 2 and (8 - 4) / 4
    }


def test_ways_that_were_not_run_have_no_ratio() -> None:
    found = ratios({way: [StepCost(cpu_seconds=2.0)] for way in (TRL, OURS, OURS_BARE)}, "cpu_seconds")
    assert set(found) == {"emor3 / trl", "emor3 without reflection / trl", "reflection adds to a trl step"}


def test_the_work_of_several_processes_is_summed_and_their_time_is_the_slowest_ones() -> None:
    found = together([StepCost(2.0, 1.5, positions=10, peak_mib=300), StepCost(3.0, 1.0, positions=5, peak_mib=200)])
    assert found == StepCost(3.0, 2.5, positions=15, peak_mib=300)


def test_straightforward_reflection_is_left_out_on_several_processes() -> None:
    assert STRAIGHT in ways_of(BenchSettings())
    assert STRAIGHT not in ways_of(BenchSettings(processes=2))


@pytest.mark.slow
@pytest.mark.enable_socket
@pytest.mark.allow_hosts(["127.0.0.1"])
def test_two_sharded_processes_take_a_step_together() -> None:
    settings = BenchSettings(images=2, completions=2, max_tokens=8, rounds=1, processes=2)
    way = Way(TRL, settings, multiprocessing.get_context("spawn"))
    try:
        way.ready()
        cost = way.step()
    finally:
        way.end()
    assert cost.encoded == 3 * 2 * 2  # rollouts, reference and update, 2 images with 2 completions each
    assert 0 < cost.update_cpu_seconds < cost.cpu_seconds


@pytest.mark.slow
def test_the_judge_of_a_step_takes_as_many_forwards_on_each_process(tmp_path: Path) -> None:
    settings = BenchSettings(images=2, completions=2, max_tokens=8, rounds=1)
    trainer = make_trainer(OURS, settings, str(tmp_path), Meter(Collector(), 0))
    assert {type(part.scorer.judge) for part in trainer.reward_funcs} == {InStepJudge}


def test_images_that_cannot_be_shared_out_are_refused() -> None:
    with pytest.raises(UserError, match="--images 3 cannot be shared out evenly over --processes 2"):
        bench_step(BenchSettings(images=3, processes=2), lambda done: None)


def test_more_images_a_step_than_the_data_has_are_refused_before_any_process_starts(scenes: str) -> None:
    with pytest.raises(UserError, match="fewer than 25 training images"):
        bench_step(BenchSettings(data=scenes, images=25), lambda done: None)


def test_growth_is_one_row_a_setting_and_one_line_a_way(tmp_path: Path) -> None:
    cost = {"cpu_seconds": 1.0, "positions": 2000, "encoded": 3, "processed": 4}
    points = [Point("images", value, way, cost) for value in (2, 4) for way in (TRL, STRAIGHT, OURS)]
    rows = to_markdown(points).splitlines()[2:]
    assert len(rows) == 2
    assert re.search(r"2 \| 1\.00 \| 1\.00 \| 1\.00 \| 2,000 / 2,000 / 2,000", rows[0])
    plot(
        [
            Point(axis, value, p.way, cost)
            for axis in ("completions", "pixels", "labels", "images")
            for value in (2, 4)
            for p in points
        ],
        tmp_path / "growth.png",
    )
    assert (tmp_path / "growth.png").stat().st_size > 1000
