"""Distances between human votes p and the model's distribution q over K labels, both (K,)."""

from collections.abc import Callable

import numpy as np
from scipy.spatial import distance

from emor3.stats.uncertainty import Floats

Distance = Callable[[Floats, Floats], float]


def chebyshev(p: Floats, q: Floats) -> float:
    """max |p - q|."""
    return float(distance.chebyshev(p, q))


def clark(p: Floats, q: Floats) -> float:
    """sqrt(sum ((p - q) / (p + q))^2), 0/0 = 0 (Geng 2016)."""
    return float(np.sqrt(np.sum(_relative_difference(p, q) ** 2)))


def canberra(p: Floats, q: Floats) -> float:
    """sum |p - q| / (p + q), 0/0 = 0."""
    return float(np.sum(np.abs(_relative_difference(p, q))))


def _relative_difference(p: Floats, q: Floats) -> Floats:
    return np.divide(p - q, p + q, out=np.zeros_like(p), where=p + q > 0)


def kullback_leibler(p: Floats, q: Floats) -> float:
    """sum p log(p / q) in nats, 0 log 0 = 0; finite because q is smoothed."""
    return float(np.sum(p * np.log(np.divide(p, q, out=np.ones_like(p), where=p > 0))))


def jensen_shannon(p: Floats, q: Floats) -> float:
    """Mean of the divergences of p and q from their mean, in bits: 0 to 1."""
    return float(distance.jensenshannon(p, q, base=2) ** 2)


def cosine(p: Floats, q: Floats) -> float:
    """Cosine similarity, higher is closer."""
    return float(1 - distance.cosine(p, q))


def intersection(p: Floats, q: Floats) -> float:
    """sum min(p, q), higher is closer."""
    return float(np.minimum(p, q).sum())


def brier(p: Floats, q: Floats) -> float:
    """sum (p - q)^2 (Brier 1950), 0 to 2."""
    return float(np.sum((p - q) ** 2))
