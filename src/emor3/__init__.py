"""emor3: teach vision-language models to reason about the emotion an image evokes (EMO-R3, CVPR 2026).

The names in `__all__` are what people build on (docs/api.md): they follow semantic versioning. Each is loaded when it
is first used, so that `import emor3` loads neither torch nor anything else.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emor3.api.loops import reward_functions as reward_functions
    from emor3.api.policies import evaluate as evaluate
    from emor3.api.policies import predict as predict
    from emor3.api.tables import read_table as read_table
    from emor3.data.folders import load_samples as load_samples
    from emor3.errors import UserError as UserError
    from emor3.evaluation.candidate import Candidate as Policy
    from emor3.evaluation.candidate import load_candidate as load_policy
    from emor3.method.labels import LabelSet as LabelSet
    from emor3.method.labels import get_label_set as get_label_set
    from emor3.method.rewards import RewardSettings as RewardSettings
    from emor3.method.rewards import failed_parts as failed_parts
    from emor3.method.thinking import parse as parse
    from emor3.method.types import Judge as Judge
    from emor3.method.types import Question as Question
    from emor3.method.types import Reply as Reply
    from emor3.method.types import Rollout as Rollout
    from emor3.method.types import Sample as Sample
    from emor3.runs.recipe import Recipe as Recipe
    from emor3.runs.recipe import load_recipe as load_recipe
    from emor3.scoring.rows import score_rows as score_rows
    from emor3.training.dataset import prompt_dataset as prompt_dataset
    from emor3.training.run import train as train
    from emor3.training.trainer import EmoTrainer as EmoTrainer

__version__ = "0.1.0"

_PUBLIC = {
    "EmoTrainer": "training.trainer",
    "Judge": "method.types",
    "LabelSet": "method.labels",
    "Policy": "evaluation.candidate:Candidate",
    "Question": "method.types",
    "Recipe": "runs.recipe",
    "Reply": "method.types",
    "RewardSettings": "method.rewards",
    "Rollout": "method.types",
    "Sample": "method.types",
    "UserError": "errors",
    "evaluate": "api.policies",
    "failed_parts": "method.rewards",
    "get_label_set": "method.labels",
    "load_policy": "evaluation.candidate:load_candidate",
    "load_recipe": "runs.recipe",
    "load_samples": "data.folders",
    "parse": "method.thinking",
    "predict": "api.policies",
    "prompt_dataset": "training.dataset",
    "read_table": "api.tables",
    "reward_functions": "api.loops",
    "score_rows": "scoring.rows",
    "train": "training.run",
}
"""Each public name by its module, and by its name there if that is another."""

__all__ = [
    "EmoTrainer",
    "Judge",
    "LabelSet",
    "Policy",
    "Question",
    "Recipe",
    "Reply",
    "RewardSettings",
    "Rollout",
    "Sample",
    "UserError",
    "__version__",
    "evaluate",
    "failed_parts",
    "get_label_set",
    "load_policy",
    "load_recipe",
    "load_samples",
    "parse",
    "predict",
    "prompt_dataset",
    "read_table",
    "reward_functions",
    "score_rows",
    "train",
]


def __getattr__(name: str) -> Any:
    """A public name, loaded when it is first used."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'emor3' has no attribute {name!r}")
    module, _, inner = _PUBLIC[name].partition(":")
    found = getattr(import_module(f"emor3.{module}"), inner or name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
