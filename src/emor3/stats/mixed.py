"""A mixed model of statsmodels as a check of `seeds.compare_seeds`: do sign and size of a difference agree?

Its restricted likelihood estimates the same variances in another way (Bates et al. 2015, arXiv 1406.5823; random slopes
of items as Barr et al. 2013 ask for). Its p-value takes them as known, which few seeds do not allow: it is a check of
the difference and its standard error, never the test.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from statsmodels.regression.mixed_linear_model import MixedLM, VCSpec

from emor3.errors import UserError
from emor3.method.types import Estimate
from emor3.stats.uncertainty import Floats


@dataclass(frozen=True)
class MixedModel:
    """What the mixed model finds of `after` against `before`."""

    difference: Estimate
    """With Wald's 95% interval, which takes the variances as known."""
    p_value: float
    """Wald's: too small for few seeds."""
    standard_error: float
    seed_deviation: float
    """Standard deviation of runs of one method."""


def mixed_model(before: Floats, after: Floats) -> MixedModel:
    """Tables [S, C] of two methods: value ~ method + (1 | run) + (1 + method | item), by restricted likelihood.

    Runs and items are crossed, which would take one dense matrix over all S x C values. An orthogonal rotation of the
    items [C, C] puts their mean in the first column, and nothing of runs and methods in the others: the columns are
    then independent groups, the model and its likelihood the same.

    Some seconds for 10 runs on 512 items. Raises UserError for fewer than two runs of a method, or outcomes without any
    difference.

    >>> before = np.array([[1.0, 0, 0, 1, 0], [1, 0, 0, 0, 1], [1, 1, 0, 1, 0]])
    >>> after = np.array([[1.0, 1, 0, 1, 1], [1, 1, 0, 1, 1], [1, 0, 1, 1, 1]])
    >>> round(mixed_model(before, after).difference.value, 3)
    0.333
    """
    if min(len(before), len(after)) < 2:
        raise UserError("a mixed model needs at least two runs of each method to tell runs from items")
    table = np.concatenate([before, after])
    if np.ptp(table - table.mean(axis=0)) == 0:
        raise UserError("a mixed model needs outcomes that differ from run to run")
    runs, number = table.shape
    method = np.repeat([0.0, 1.0], [len(before), len(after)])
    rotated = table @ _rotation(number)
    root = np.sqrt(number)  # the first column is the mean times this
    none = np.zeros((runs, 0))
    exog = np.zeros((number, runs, 2))
    exog[0] = root * np.stack([np.ones(runs), method], axis=1)
    parts = VCSpec(
        ["run", "item", "item and method"],
        [[[f"run{run}" for run in range(runs)]] + [[]] * (number - 1), [["item"]] * number, [["slope"]] * number],
        [
            [np.eye(runs)] + [none] * (number - 1),
            [np.ones((runs, 1))] * number,
            [(method - 0.5)[:, None]] * number,
        ],
    )
    groups = np.repeat(np.arange(number), runs)
    model = MixedLM(rotated.T.ravel(), exog.reshape(-1, 2), groups, exog_vc=parts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a variance of 0 lies on the border, and is an answer
        try:
            found = model.fit(method="powell")  # without gradients, which lose their way near that border
        except np.linalg.LinAlgError:
            raise UserError("a mixed model cannot be fitted to so few outcomes") from None
    value, error = float(found.fe_params[1]), float(found.bse_fe[1])
    return MixedModel(
        difference=Estimate(value, value - 1.96 * error, value + 1.96 * error, number),
        p_value=float(found.pvalues[1]),
        standard_error=error,
        seed_deviation=float(np.sqrt(max(found.vcomp[0], 0.0) / number)),
    )


def _rotation(number: int) -> Floats:
    """An orthogonal matrix [C, C] whose first column is constant: Householder's reflection of the first axis."""
    axis = np.full(number, -1 / np.sqrt(number))
    axis[0] += 1
    length = axis @ axis
    return np.asarray(np.eye(number) - (2 / length) * np.outer(axis, axis))
