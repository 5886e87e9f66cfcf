"""The grid of costs: which points, what is measured again, figures within rounds, and verdicts on the targets."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from emor3.models.checkpoints import load
from emor3.models.generation import encode
from emor3.tools.bench.meter import Meter, StepCost
from emor3.tools.bench.updates import CACHE, PACKED, SEPARATE
from emor3.tools.bench.ways import EVERY, OURS, TRL, BenchSettings, make_trainer
from grid import Point, all_points, chosen, main
from grid_tables import figures, verdicts
from growth import Collector
from larger import write_larger


def costs(trl: float = 10.0, ours: float = 4.0) -> dict[str, list[StepCost]]:
    """Two rounds: in the second one the machine is twice as slow."""
    tried = {PACKED: 1.0, CACHE: 2.0, SEPARATE: 7.0}
    return {
        TRL: [
            StepCost(
                cpu_seconds=trl * slow, update_cpu_seconds=8 * slow, positions=200, peak_mib=900, libraries_mib=500
            )
            for slow in (1, 2)
        ],
        OURS: [
            StepCost(
                cpu_seconds=ours * slow,
                update_cpu_seconds=2 * slow,
                reward_cpu_seconds=0.5 * slow,
                positions=50,
                peak_mib=600,
                libraries_mib=500,
            )
            for slow in (1, 2)
        ],
        EVERY: [
            StepCost(cpu_seconds=3.5 * slow, updates={w: s * slow for w, s in tried.items()}, chosen=CACHE)
            for slow in (1, 2)
        ],
    }


def kept(point: Point, **given: float) -> dict[str, Any]:
    found = {way: [asdict(cost) for cost in steps] for way, steps in costs(**given).items()}
    return {"point": asdict(point), "settings": asdict(point.settings("embedded", 2)), "costs": found}


def test_the_grid_is_every_size_with_every_g_and_both_kinds_of_checkpointing() -> None:
    points = all_points()
    grid = {(p.tokens, p.completions, p.checkpointing) for p in points if p.size == "embedded" and p.processes == 1}
    assert len(grid) == 4 * 3 * 2
    assert len(points) == len({point.name for point in points}) == 24 + 2 * 3 + 1  # two larger models, two processes


def test_points_of_the_targets_come_first() -> None:
    names = [point.name for point in all_points()]
    assert names[:4] == ["1024x8-checkpointing", "64x8-checkpointing", "16x8-checkpointing", "256x8-checkpointing"]
    assert all(name.startswith("1024x") for name in names[-5:])  # what takes longest comes last


def test_points_are_chosen_by_pattern_model_and_processes() -> None:
    assert [p.name for p in chosen(all_points(), ["64x8*"], "100M", None)] == ["64x8-checkpointing-100M"]
    assert [p.name for p in chosen(all_points(), ["*"], None, 2)] == ["256x8-fsdp2"]


def test_figures_are_medians_of_ratios_within_rounds() -> None:
    found = figures(kept(Point(64, 8)))
    # without reflection 3.5 s, of which the chosen update takes 2: 3.5 - 2 + 1, + 2 and + 7, of 10
    assert found.steps == {PACKED: 0.25, CACHE: 0.35, SEPARATE: 0.85}
    assert (found.chosen, found.of_fastest) == (CACHE, 2.0)
    assert (found.reflecting, found.reflection, found.update) == (0.4, 0.05, 0.25)
    assert found.positions == 0.25
    assert found.peak == pytest.approx(600 / 900)
    assert found.peak_beyond == 0.25  # 100 of 400 MiB


def test_targets_hold_are_missed_or_were_not_measured() -> None:
    point, larger = Point(1024, 8, True), Point(1024, 8, True, "20M")
    found = verdicts({point.name: figures(kept(point)), larger.name: figures(kept(larger, ours=6.0))})
    said = {name: (measured, verdict) for name, _, measured, verdict in found}
    assert said["update, 1,024 visual tokens, G = 8, checkpointing"] == ("0.25", "holds")
    assert said["peak memory, 1,024 visual tokens, G = 8, checkpointing"] == ("0.67", "missed")
    assert said["step with reflection, 16 visual tokens, G = 8"] == ("-", "not measured")
    assert said["chosen update over the fastest, the most of all points"] == ("2.00", "missed")
    assert said["step of a larger model over the embedded one's ratio, the most"] == ("1.50", "missed")  # 0.6 over 0.4


def test_a_second_call_goes_on_with_what_is_lacking(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[str] = []

    def do(point: Point, settings: BenchSettings, on_round: Any) -> dict[str, list[StepCost]]:
        asked.append(point.name)
        return costs()

    main([str(tmp_path), "--points", "16x4"], do)
    main([str(tmp_path), "--points", "16x4", "16x8"], do)
    assert asked == ["16x4", "16x8"]
    main([str(tmp_path), "--points", "16x4", "--rounds", "3"], do)
    assert asked[2:] == ["16x4"]  # two rounds are too few now
    assert len(json.loads((tmp_path / "grid.json").read_text())["points"]) == 2
    assert len((tmp_path / "grid.csv").read_text().splitlines()) == 1 + 2
    assert "2 of 31 points are measured" in (tmp_path / "grid.md").read_text()
    assert "update, 1,024 visual tokens" in capsys.readouterr().out


def test_no_point_is_started_after_the_minutes_given(tmp_path: Path) -> None:
    def do(*_: Any) -> dict[str, list[StepCost]]:
        raise AssertionError("it was started")

    main([str(tmp_path), "--minutes", "-1", "--points", "16x4"], do)
    assert "0 of 31 points are measured" in (tmp_path / "grid.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(("checkpointing", "ways"), [(False, {CACHE, PACKED, SEPARATE}), (True, {PACKED, SEPARATE})])
def test_every_update_is_tried_and_the_step_is_that_of_the_chosen_one(
    tmp_path: Path, checkpointing: bool, ways: set[str]
) -> None:
    settings = BenchSettings(images=1, completions=2, max_tokens=24, checkpointing=checkpointing, rounds=1)
    collector = Collector()
    make_trainer(EVERY, settings, str(tmp_path), Meter(collector, 0)).train()
    cost = collector.costs[1]
    assert cost.updates.keys() == ways
    assert cost.chosen == (PACKED if checkpointing else CACHE)  # a few tokens behind many
    others = sum(seconds for way, seconds in cost.updates.items() if way != cost.chosen)
    assert cost.updates[cost.chosen] < cost.update_cpu_seconds < cost.updates[cost.chosen] + others


@pytest.mark.slow
def test_a_larger_model_says_what_the_embedded_one_says(tmp_path: Path, scenes: str) -> None:
    assert 18e6 < write_larger("20M", tmp_path / "20M") < 22e6
    picture = sorted(Path(scenes).glob("images/*"))[0]
    logits = []
    for path in ("embedded", str(tmp_path / "20M")):
        model, processor = load(path)
        with torch.no_grad():
            logits.append(model.eval()(**encode(processor, [((str(picture),), "Which emotion?")])).logits)
    torch.testing.assert_close(logits[0], logits[1], atol=2e-3, rtol=1e-3)
