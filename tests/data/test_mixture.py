"""One run may train on several sets with different labels: ids stay apart, each sample has the labels of its set."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from emor3.data.folders import load_mixture
from emor3.errors import UserError
from emor3.evaluation.predict import choose_labels
from emor3.runs.directory import ROLLOUTS
from emor3.runs.recipe import Recipe, load_recipe
from emor3.runs.records import read_jsonl
from emor3.tiny.folders import write_domain
from emor3.tiny.world import DOMAINS
from emor3.training.dataset import chosen_samples
from emor3.training.run import train


@pytest.fixture(scope="module")
def two_sets(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two folders whose file names are the same and whose label sets are not: Mikels-8 and Ekman-6."""
    root = tmp_path_factory.mktemp("mixture")
    for name in ("scenes8", "scenes6"):
        write_domain(root / name, DOMAINS[name], seed=0, sizes={"train": 16, "test": 4})
    return [str(root / name) for name in ("scenes8", "scenes6")]


def recipe_of(folder: Path, train_on: Any, **changes: Any) -> Recipe:
    content = {
        "output_dir": str(folder / "run"),
        "model": {"path": "embedded"},
        "data": {"train": train_on},
        "grpo": {"max_steps": 1, "num_generations": 2, "per_device_train_batch_size": 8, "max_completion_length": 6},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content | changes), encoding="utf-8")
    return load_recipe(path)


def test_ids_of_a_mixture_begin_with_their_folder_and_each_set_keeps_its_labels(two_sets: list[str]) -> None:
    samples = load_mixture(two_sets, split="train")
    assert len({sample.id for sample in samples}) == len(samples) == 32
    by_set = {folder: {s.labels.name for s in samples if s.id.startswith(f"{folder}:")} for folder in two_sets}
    assert list(by_set.values()) == [{"mikels8"}, {"ekman6"}]


def test_ids_of_a_single_folder_stay_as_they_are(two_sets: list[str], tmp_path: Path) -> None:
    for train_on in (two_sets[0], two_sets[:1]):
        samples = chosen_samples(recipe_of(tmp_path, train_on))
        assert samples[0].id == "images/train_00000.png"


def test_a_folder_given_twice_or_none_at_all_is_refused(two_sets: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="names a folder twice"):
        load_mixture([two_sets[0], two_sets[0]])
    with pytest.raises(UserError, match=r"data.train"):
        recipe_of(tmp_path, [])


def test_a_model_trained_on_several_label_sets_asks_which_one_to_predict_with(
    two_sets: list[str], tmp_path: Path
) -> None:
    class Trained:
        recipe = recipe_of(tmp_path, two_sets)

    with pytest.raises(UserError, match=r"name one with --labels: it was trained on several"):
        choose_labels(Trained(), None)


@pytest.mark.slow
def test_a_run_trains_on_both_sets_and_scores_each_by_its_own_labels(
    two_sets: list[str], tmp_path: Path, random_checkpoint: str
) -> None:
    recipe = recipe_of(tmp_path, two_sets, model={"path": random_checkpoint})
    run = train(recipe)
    trained_on = {row["sample"].split(":")[0] for row in read_jsonl(run / ROLLOUTS)}
    assert trained_on == set(two_sets)  # four prompts of each step, drawn from both with this seed
