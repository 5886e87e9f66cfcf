"""The smallest difference that a design can see, and how many images and seeds a planned comparison needs.

A design is n images (or clusters of near copies) x S seeds of each of two methods. As in studies of participants and
stimuli, neither side makes up for the other (Westfall, Kenny & Judd 2014, J. Exp. Psychology: General 143): more images
leave the spread of seeds, more seeds that of images. Colas et al. 2018 (arXiv 1806.08295) count seeds alone, Card et
al. 2020 (arXiv 2010.06595) and Miller 2024 (arXiv 2411.00640) items alone.
"""

from collections.abc import Callable

from scipy.optimize import brentq
from scipy.stats import nct
from scipy.stats import t as student

from emor3.stats.seeds import Spread

LARGEST = 2**24
"""Images or seeds that a search goes up to."""


def spread_of_shares(between: float, within: float, deviation: float, images: int) -> Spread:
    """Variance components of a yes-or-no outcome from three numbers that a first trial shows; all are shares.

    `between`: images on which a run of one method and a run of the other differ; `within`: images on which two runs of
    one method differ (at most `between`); `deviation`: standard deviation of the figure over seeds on `images` images,
    which holds the noise of that many images, too: within / 2 / images of its square.

    Two arms differ on 6% of the images, two seeds of one arm on 4%, and its accuracy spreads by 1.5 points on 512:

    >>> spread = spread_of_shares(0.06, 0.04, 0.015, 512)
    >>> [round(part, 5) for part in (spread.seed, spread.item, spread.residual)]
    [0.00037, 0.02, 0.04]
    """
    seed = max(deviation**2 - within / 2 / images, 0.0)
    return Spread(2 * seed, max(between - within, 0.0), within)


def detectable(standard_error: float, freedom: float, alpha: float = 0.05, power: float = 0.8) -> float:
    """The difference that a two-sided t-test at level alpha finds with this power: by the noncentral t distribution.

    In the unit of the standard error. Without doubt about the error it is (1.96 + 0.84) of it, with four degrees more:

    >>> round(detectable(1.0, 1e6), 2), round(detectable(1.0, 4), 2)
    (2.8, 3.76)
    """
    if standard_error == 0:
        return 0.0
    needed = float(student.isf(alpha / 2, freedom))
    return standard_error * float(brentq(lambda shift: nct.sf(needed, freedom, shift) - power, 0.0, 3 * needed + 10))


def smallest_effect(
    spread: Spread, images: int, seeds: int, paired: bool = False, alpha: float = 0.05, power: float = 0.8
) -> float:
    """The smallest difference of shares that n images x S seeds of each method show with this power.

    Variance and degrees of freedom are those of `seeds.compare_seeds`. Of a family of m tests, of which Holm takes the
    surest first, alpha is the family's divided by m.

    What the trial above allows with five seeds and with ten, in points:

    >>> spread = spread_of_shares(0.06, 0.04, 0.015, 512)
    >>> [round(100 * smallest_effect(spread, 512, seeds), 1) for seeds in (5, 10)]
    [3.4, 2.6]
    """
    if seeds < 2:
        raise ValueError("the spread of seeds needs at least two of them")
    seed_part = (spread.seed + spread.residual / images) / seeds
    item_part = spread.item / images
    doubt = seed_part**2 / ((seeds - 1) * (1 if paired else 2)) + item_part**2 / max(images - 1, 1)
    variance = seed_part + item_part
    freedom = variance**2 / doubt if doubt > 0 else images - 1.0
    return detectable(variance**0.5, freedom, alpha, power)


def images_needed(
    spread: Spread, effect: float, seeds: int, paired: bool = False, alpha: float = 0.05, power: float = 0.8
) -> int | None:
    """Images with which S seeds of each method show a difference; None if no number of images does.

    Three seeds show six points on few images, and two points on none:

    >>> spread = spread_of_shares(0.06, 0.04, 0.015, 512)
    >>> [images_needed(spread, effect, seeds=3) for effect in (0.06, 0.02)]
    [130, None]
    """
    return _fewest(lambda images: smallest_effect(spread, images, seeds, paired, alpha, power) <= effect)


def seeds_needed(
    spread: Spread, effect: float, images: int, paired: bool = False, alpha: float = 0.05, power: float = 0.8
) -> int | None:
    """Seeds of each method with which n images show a difference; None if no number of seeds does.

    >>> spread = spread_of_shares(0.06, 0.04, 0.015, 512)
    >>> [seeds_needed(spread, effect, images=512) for effect in (0.03, 0.01)]
    [7, None]
    """
    return _fewest(lambda seeds: smallest_effect(spread, images, seeds, paired, alpha, power) <= effect)


def _fewest(enough: Callable[[int], bool]) -> int | None:
    """The least number of at least two that is enough, by doubling and halving; None if the largest is not."""
    high = 2
    while not enough(high):
        high *= 2
        if high > LARGEST:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
