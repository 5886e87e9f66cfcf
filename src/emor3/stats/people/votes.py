"""How predictions agree with the votes of people: the dominant label, a viewer drawn at random, the order of labels.

The greedy answer is held against the votes; ranks are those of the shares of M sampled answers. What people themselves
allow stands beside: a guesser who knows the votes and always names the first label.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from emor3.method.types import Estimate, Prediction
from emor3.stats.classification import clusters
from emor3.stats.distributions import answer_shares, votes
from emor3.stats.people.ratings import srcc
from emor3.stats.uncertainty import Floats, mean, means, proportion, resample

TOP = (2, 3)
"""How many labels of the model's ranking may hold the dominant one."""


def against_votes(predictions: Sequence[Prediction], seed: int = 0) -> dict[str, Estimate]:
    """Figures of the greedy answers of predictions whose samples people voted on; nothing if there are none."""
    voted = [(p, human) for p in predictions if (human := votes(p)) is not None]
    if not voted:
        return {}
    items = clusters([p for p, _ in voted])
    shares = {
        "voters_agreeing": [vote_share(p, human) for p, human in voted],
        "voters_agreeing_ceiling": [float(human.max()) for _, human in voted],
    }
    return {
        "dominant_accuracy": proportion([is_dominant(p, human) for p, human in voted], items, seed),
        **means(shares, items, seed),
        **_ranks(voted, seed),
    }


def is_dominant(prediction: Prediction, human: Floats) -> bool:
    """Whether the answer is the label with most votes, or one of those that share the first place."""
    return prediction.predicted is not None and human[_place(prediction, prediction.predicted)] == human.max()


def vote_share(prediction: Prediction, human: Floats) -> float:
    """Share of the voters who chose the answer: the chance that a voter drawn at random agrees with it."""
    return 0.0 if prediction.predicted is None else float(human[_place(prediction, prediction.predicted)])


def _place(prediction: Prediction, label: str) -> int:
    return prediction.sample.labels.labels.index(label)


# --- ranks of labels, by sampled answers ------------------------------------------------------------------------------


def _ranks(voted: Sequence[tuple[Prediction, Floats]], seed: int) -> dict[str, Estimate]:
    sampled = [(p, human, answer_shares(p)) for p, human in voted if p.sampled is not None]
    if not sampled:
        return {}
    items = clusters([p for p, _, _ in sampled])
    found = {
        f"dominant_in_top{k}": proportion([in_top(human, model, k) for _, human, model in sampled], items, seed)
        for k in TOP
    }
    ordered = [(p, rank_correlation(human, model)) for p, human, model in sampled]
    known = [(p, value) for p, value in ordered if value is not None]
    if known:
        found["rank_correlation"] = mean([value for _, value in known], clusters([p for p, _ in known]), seed)
    positive = np.array([human > 0 for _, human, _ in sampled])
    scores = np.array([model for _, _, model in sampled])

    def precision(places: NDArray[np.intp]) -> float:
        return mean_average_precision(positive[places], scores[places])

    interval = resample(precision, items, seed)
    found["mean_average_precision"] = Estimate(precision(np.arange(len(sampled))), *interval, len(sampled))
    return found


def in_top(human: Floats, model: Floats, k: int) -> bool:
    """Whether fewer than k labels lie before a dominant one in the model's order; ties lie before it.

    >>> in_top(np.array([0.6, 0.3, 0.1]), np.array([0.2, 0.5, 0.3]), 2), in_top(np.eye(3)[0], np.ones(3) / 3, 2)
    (False, False)
    """
    if not model.any():
        return False
    best = model[human == human.max()].max()
    return bool((model >= best).sum() - (model[human == human.max()] == best).sum() < k)


def rank_correlation(human: Floats, model: Floats) -> float | None:
    """Spearman's correlation of K votes and shares, ties at their mean rank; None if either has one value only.

    >>> rank_correlation(np.array([0.6, 0.3, 0.1]), np.array([0.5, 0.1, 0.4]))
    0.5
    """
    if np.ptp(human) == 0 or np.ptp(model) == 0:
        return None
    return srcc(human, model)


def mean_average_precision(positive: NDArray[np.bool_], scores: Floats) -> float:
    """Mean over labels of the average precision of N images [N, K]; labels that all or no images have are left out.

    The metric of EMOTIC: a label is positive if anybody chose it. 0 if no label can be ranked.

    Two of three images are positive, at ranks 1 and 3: (1 + 2/3) / 2.

    >>> round(mean_average_precision(np.array([[True], [False], [True]]), np.array([[0.9], [0.5], [0.1]])), 3)
    0.833
    """
    count = positive.sum(axis=0)
    ranked = np.flatnonzero((count > 0) & (count < len(positive)))
    return float(np.mean([average_precision(positive[:, k], scores[:, k]) for k in ranked])) if len(ranked) else 0.0


def average_precision(positive: NDArray[np.bool_], scores: Floats) -> float:
    """sum of precision x gain in recall over the thresholds, equal scores at one threshold."""
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(positive[order])
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    return float(np.sum(np.diff(hits[last], prepend=0) * hits[last] / (last + 1)) / hits[-1])
