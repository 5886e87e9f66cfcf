"""Benchmarks in their authors' layouts: VECBench, MVEI, EEmo-Bench and EMOTIC."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import layouts
from emor3.data.folders import load_samples
from emor3.data.importers.benchmarks.published import PUBLISHED, origin
from emor3.data.importers.catalogue import SETS
from emor3.data.importers.importing import import_data
from emor3.errors import UserError
from emor3.evaluation.summary import results_table, summarise
from emor3.method.thinking import parse, sample_prompt
from emor3.method.types import Prediction, Sample
from emor3.stats.figures import FIGURES


@pytest.fixture
def bring(tmp_path: Path) -> Callable[..., dict[str, Sample]]:
    """Function that lays out a benchmark, imports it and returns its samples by id."""

    def bring_set(name: str, **options: Any) -> dict[str, Sample]:
        source = tmp_path / "source"
        source.mkdir()
        layouts.BUILDERS[name](source)
        import_data(name, str(source), tmp_path / "out", **options)
        return {sample.id: sample for sample in load_samples(str(tmp_path / "out"))}

    return bring_set


def reasons(tmp_path: Path) -> list[str]:
    return [entry["reason"] for entry in json.loads((tmp_path / "out/import.json").read_text())["dropped"]]


def test_vecbench_gives_the_rows_of_one_task_whatever_machine_their_paths_are_of(
    bring: Callable[..., dict[str, Sample]], tmp_path: Path
) -> None:
    samples = bring("vecbench", policy="emoset-8")
    assert sorted(sample.label for sample in samples.values()) == sorted(layouts.MIKELS)
    assert {sample.split for sample in samples.values()} == {"test"}
    assert [reason.partition(",")[0] for reason in reasons(tmp_path)] == [
        "'boredom' is none of amusement",
        "no image at /home/authors/data/images/EmoSet/gone.jpg or an end of it",
    ]


def test_vecbench_folds_nothing_and_names_the_tasks_that_there_are(
    bring: Callable[..., dict[str, Sample]], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"the tasks EmoSet-8, WebEmo-2, and not fi-8"):
        bring("vecbench", policy="fi-8")
    import_data("vecbench", str(tmp_path / "source"), tmp_path / "two", policy="webemo-2")
    assert [sample.label for sample in load_samples(str(tmp_path / "two"))] == ["positive"]


def test_mvei_statements_stand_in_the_prompt_and_share_the_group_of_their_image(
    bring: Callable[..., dict[str, Sample]], tmp_path: Path
) -> None:
    samples = bring("mvei")
    first = samples["amusement_1.jpg#0"]
    assert (len(samples), first.label, first.group) == (4, "correct", "amusement_1.jpg")
    assert samples["fear_2.jpg#1"].label == "incorrect"
    prompt = sample_prompt(first, "statement")
    assert prompt.startswith("Text: The picture cheers people up.\n")
    assert "correct, incorrect" in prompt
    assert reasons(tmp_path) == ["a statement and the label correct or incorrect expected"]


def test_mvei_can_be_cut_to_one_of_its_dimensions(bring: Callable[..., dict[str, Sample]]) -> None:
    samples = bring("mvei", policy="subjectivity")
    assert sorted(samples) == ["amusement_1.jpg#1", "fear_2.jpg#1"]


def test_eemo_bench_images_are_read_once_from_all_files_with_votes_and_ratings(
    bring: Callable[..., dict[str, Sample]], tmp_path: Path
) -> None:
    samples = bring("eemo-bench")
    angry = samples["579.jpg"]
    assert sorted(samples) == ["579.jpg", "7.jpg"]
    assert angry.label == "anger"
    assert angry.distribution["surprise"] == pytest.approx(28 / 83)  # of the 33 + 28 + 22 votes that are given
    assert angry.valence == pytest.approx(4.33 / 8)  # (5.33 - 1) / 8
    assert samples["7.jpg"].valence == 0
    assert angry.attributes == {"content": "Abstract/Cartoon image", "dominance": pytest.approx(4.44 / 8)}
    assert reasons(tmp_path) == ["tie of joy and neutral"]


def test_emotic_votes_are_the_annotators_that_chose_a_category(
    bring: Callable[..., dict[str, Sample]], tmp_path: Path
) -> None:
    samples = bring("emotic")
    assert {name.rpartition("/")[2]: sample.label for name, sample in samples.items()} == {
        "1.jpg": "engagement",
        "3.jpg": "happiness",
        "4.jpg": "happiness",
    }
    tested = next(sample for sample in samples.values() if sample.split == "test")
    assert tested.distribution == {"happiness": 0.5, "pleasure": 0.25, "doubt/confusion": 0.25}
    assert (tested.valence, tested.arousal) == (0.5, 0.5)  # the mean of 10 and 1, and 5.5, from 1..10
    assert sorted(reasons(tmp_path)) == [
        "2 people are annotated: whose emotion is asked for?",
        "tie of esteem and peace",
    ]


def test_emotic_ties_may_take_the_first_category_and_unrated_people_have_no_valence(
    bring: Callable[..., dict[str, Sample]],
) -> None:
    samples = bring("emotic", policy="first-of-ties")
    tied = next(sample for name, sample in samples.items() if name.endswith("2.jpg"))
    assert (tied.label, tied.valence) == ("esteem", None)


def test_what_was_published_names_sets_policies_and_figures_that_there_are() -> None:
    for name, policies in PUBLISHED.items():
        assert policies.keys() <= SETS[name].policies.keys()
        for entry in (entry for entries in policies.values() for entry in entries):
            assert entry.figures.keys() <= FIGURES.keys()
            assert all(0 <= value <= 1 for value in entry.figures.values())
            assert "arXiv" in entry.source


def test_an_imported_folder_tells_which_published_numbers_stand_beside_ours(
    bring: Callable[..., dict[str, Sample]], tmp_path: Path
) -> None:
    samples = bring("vecbench", policy="emoset-8").values()
    known = origin(tmp_path / "out")
    assert (known["set"], known["policy"]) == ("vecbench", "emoset-8")
    made = [Prediction(sample, "", parse(""), sample.label) for sample in samples]
    evaluation = summarise("out", made, "steps")
    console = Console(width=200)
    with console.capture() as capture:
        console.print(results_table("m", [evaluation], {"data": [{"data": "out", "imported": known}]}))
        console.print(results_table("m", [evaluation]))
    with_others, alone = capture.get().split("out, n = 8")[1:]
    assert "68.1 EmoCaliber (7B)" in with_others
    assert "67.7 EmoCaliber (7B)" in with_others  # weighted F1
    assert "EmoCaliber" not in alone
    assert origin(tmp_path / "source") is None


@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [
        ("vecbench", "rows.jsonl", "{}", r"no test_8k.jsonl; the folder holds rows.jsonl"),
        ("mvei", "MVEI_metadata.json", "[]", r"no images"),
        (
            "eemo-bench",
            "EEmo-Bench(pair).json",
            '[{"image1_url": "1.jpg"}]',
            r"EEmo-Bench\(pair\).json without annotations as `Ranking:",
        ),
        ("eemo-bench", "annotation/awe_1.json", "{}", r"no file of questions, as EEmo-Bench\(pair\).json"),
        ("emotic", "Annotations.mat", "no Matlab", r"which is no Matlab file that scipy reads"),
    ],
)
def test_another_layout_is_refused_with_what_was_found(
    name: str, file: str, content: str, message: str, tmp_path: Path
) -> None:
    layouts.text(tmp_path / "source" / file, content)
    with pytest.raises(UserError, match=message):
        import_data(name, str(tmp_path / "source"), tmp_path / "out")
