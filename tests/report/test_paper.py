"""The reproduction report holds what a reader asks for, says what is missing, and lets no text become markup."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from test_report import save_run
from typer.testing import CliRunner

from emor3.cli.main import app
from emor3.data.copies.overlaps import find_copies
from emor3.data.copies.report import summary, write_copies
from emor3.data.copies.scan import scan
from emor3.errors import UserError
from emor3.report.paper.document import write_paper
from emor3.report.paper.evaluated import fenced, line
from emor3.runs.directory import FINAL, JUDGE
from emor3.runs.predictions import EVALUATION
from emor3.runs.records import read_json
from emor3.storage.outputs import write_json
from made_up import prediction, save_evaluation


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """Two runs of one recipe, of which the second was stopped, and two models on the same four images."""
    folder = tmp_path / "runs"
    for seed in (0, 1):
        run = save_run(folder / f"run{seed}", seed)
        write_json(run / JUDGE, {"auc": 0.875, "yes_own": 0.9, "yes_swapped": 0.2, "n": 64, "auc_within": None})
    (folder / "run0" / FINAL).mkdir()
    for name, answers in (("base", ("joy", "fear", "fear", None)), ("trained", ("joy", "joy", "joy", "joy"))):
        votes = {"joy": 0.75, "fear": 0.25}
        made = [prediction("joy", answer, id=str(place), votes=votes) for place, answer in enumerate(answers)]
        save_evaluation(folder / name, {"d": made}, model=name, judge="base")
    return folder


def section(text: str, title: str) -> str:
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


def written(folder: Path, copies: Any = ()) -> str:
    write_paper([folder], copies, folder / "out.md")
    return (folder / "out.md").read_text(encoding="utf-8")


def test_the_report_has_every_section_and_says_what_is_missing(records: Path) -> None:
    text = written(records)
    present = section(text, "What is here, and what is not")
    assert "- [x] figures against the votes of people" in present
    assert "- [x] control: descriptions of another image" in present
    for missing in (
        "at least 3 seeds",
        "every run came to its end",
        "copies across splits",
        "at least 100 completions",
    ):
        assert f"- [ ] {missing}" in present
    assert "- [ ] control: a blank image in place of each" in present
    assert "Not looked for" in section(text, "Copies of images")
    assert "nobody marked completions" in section(text, "Judge")


def test_exact_prompts_and_decoding_of_policy_and_judge_are_there(records: Path) -> None:
    prompts = section(written(records), "Prompts and decoding")
    assert "Think in three steps, then answer:" in prompts
    assert "Template `consistency`, of the judge" in prompts
    assert "Template `coherence`, of the judge" in prompts


def test_results_have_intervals_tests_and_the_smallest_visible_effect(records: Path) -> None:
    results = section(written(records), "Results")
    assert "### d, greedy" in results
    assert "25.0 \\[4.6, 69.9\\]" in results  # one of four: Wilson's interval
    assert "base, greedy to trained, greedy" in results
    assert "+75.0 " in results
    assert "Smallest change, in points, that 80% of such tests find" in results


def test_the_judge_is_named_with_its_auc_and_controls_stand_beside_what_they_control(records: Path) -> None:
    text = written(records)
    assert "`base`" in section(text, "Judge")
    assert "| run0 | 0.88 | 0.90 | 0.20 |  | 64 |" in section(text, "Judge")
    assert "steps 1, 2 name a label % |" in section(text, "Controls")
    assert "| base, greedy | d | 25.0 " in section(text, "Controls")
    assert section(text, "Controls").count(" | 100.0 |") == 2  # all completions say "Joy." in step 2


def test_failed_runs_parts_over_steps_and_cost_come_from_the_runs(records: Path) -> None:
    text = written(records)
    failed = section(text, "Failed runs")
    assert "run1: no final policy after 8 steps" in failed
    assert "run0" not in failed
    # Reward climbs from 0.51 at step 1 by 0.01 a step; the first fifth of 8 steps is step 1, the last steps 7 and 8.
    assert "| reward | 0.510 | " in section(text, "Parts of the reward over steps")
    assert " | 0.575 |" in section(text, "Parts of the reward over steps")
    assert "steps of training alone" in section(text, "Cost")
    assert "Seeds: 0, 1 (2 runs)." in section(text, "Methods")


def test_a_report_on_copies_is_taken_over_and_anything_else_refused(records: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.radial_gradient("L").save(tmp_path / "images/1.png")
    copies = find_copies(scan([str(tmp_path / "images")], workers=1))
    write_copies(copies, summary(copies), tmp_path / "copies")
    text = written(records, [tmp_path / "copies"])
    assert "- [x] copies across splits and sets were looked for" in text
    assert "no two images have the same file" in section(text, "Copies of images")
    with pytest.raises(UserError, match=r"no copies.json and report.md there"):
        write_paper([records], [tmp_path / "images"], tmp_path / "out.md")


def test_an_evaluation_without_images_is_a_control_in_a_table_of_its_own(records: Path) -> None:
    settings = {"thinking": "steps", "split": "test", "temperature": 0.0, "blank": True}
    folder = save_evaluation(records / "blind", {"d": [prediction("joy", "fear")]}, model="trained", judge="base")
    head = read_json(folder / EVALUATION)
    write_json(folder / EVALUATION, head | {"settings": settings})
    text = written(records)
    assert "- [x] control: a blank image in place of each" in text
    assert "### d, greedy, blank images" in text
    assert "| trained, greedy, blank images | d | 0.0 " in section(text, "Controls")


def test_texts_of_records_stay_texts() -> None:
    assert line("a|b <script> [x](y) `c`\nd") == "a\\|b \\<script\\> \\[x\\](y) \\`c\\` d"
    assert fenced("```\nx").startswith("````text\n")


def test_the_command_writes_it_and_refuses_options_of_the_page(records: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["report", str(records), "--paper", "-o", str(tmp_path / "r.md")])
    assert (done.exit_code, "written to:" in done.output) == (0, True), done.output
    for arguments, message in (
        (["--paper", "--watch"], "--watch does nothing with"),
        (["--copies", "x"], "--copies does nothing without"),
    ):
        refused = CliRunner().invoke(app, ["report", str(records), *arguments])
        assert isinstance(refused.exception, UserError)
        assert message in str(refused.exception)
