"""Records of runs and evaluations as pandas tables."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd
from pydantic import TypeAdapter

from emor3.errors import UserError
from emor3.runs.directory import EVALUATIONS, METRICS, ROLLOUTS
from emor3.runs.predictions import PREDICTIONS, RESULTS
from emor3.runs.records import Record, read_json, read_jsonl, typed

Table = Literal["metrics", "rollouts", "evaluations", "predictions", "figures"]
FILES: dict[Table, str] = {
    "metrics": METRICS,
    "rollouts": ROLLOUTS,
    "evaluations": EVALUATIONS,
    "predictions": PREDICTIONS,
    "figures": RESULTS,
}
"""The file behind each table: the first three of a run, the others of an evaluation."""


class EstimateRow(Record):
    """A figure as `results.json` holds it."""

    value: float
    low: float
    high: float
    n: int


class ResultsRow(Record):
    """What `results.json` says of one data set."""

    data: str
    figures: dict[str, EstimateRow]


RESULTS_FORM = TypeAdapter(list[ResultsRow])


def read_table(folder: str | Path, table: Table) -> pd.DataFrame:
    """One record of a run directory or of an evaluation's folder as a table.

    metrics      a row a step                              rollouts     a row a completion of training
    evaluations  a row an evaluation during training       predictions  a row a sample of an evaluation
    figures      a row a figure: data, figure, value, low, high (95% interval), n

    Columns are the keys of docs/reference.md, of blocks inside by dots: `parts.accuracy`, `thought.trigger`,
    `reflection.consistency.verdict`. A last line that is still being written is left out.
    Raises UserError for an unknown table, and if the folder holds none of this kind or a broken one.
    """
    if table not in FILES:
        raise UserError(f"no table {table!r}: there are {', '.join(get_args(Table))}")
    path = Path(folder) / FILES[table]
    if not path.is_file():
        found = [name for name, file in FILES.items() if (path.parent / file).is_file()]
        has = f"there: {', '.join(found)}" if found else "it is no folder of a run or of an evaluation"
        raise UserError(f"{folder} has no {FILES[table]} for the table {table!r}; {has}")
    rows = list(_figures(path)) if table == "figures" else list(read_jsonl(path))
    return pd.json_normalize(rows)


def _figures(path: Path) -> Iterator[dict[str, Any]]:
    for part in typed(read_json(path).get("data"), RESULTS_FORM, str(path)):
        for name, estimate in part.figures.items():
            yield {"data": part.data, "figure": name, **estimate.model_dump()}
