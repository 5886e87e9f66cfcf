"""How many marks a study needs: the width of the 95% interval of Cohen's kappa, by formula and by simulation.

Two raters who agree by kappa: of an item they share one answer, drawn from the shares of the answers, with that
probability, else each draws its own. The formula is the large-sample variance of Fleiss, Cohen & Everitt 1969,
Psychological Bulletin 72; the simulation draws studies of as many marks as that asks for and takes their intervals as
`emor3 compare` prints them: mean half width, and how many of them hold the true kappa.

`python benchmarks/marks_needed.py` prints the table of docs/review.md, in about two minutes of CPU time.
"""

import numpy as np

from emor3.stats.agreement.coefficients import agreement
from emor3.stats.format import markdown_table, whole_percent
from emor3.stats.uncertainty import Floats

ANSWERS = {
    "yes or no, 50% yes": [0.5, 0.5],
    "yes or no, 80% yes": [0.8, 0.2],
    "yes or no, 90% yes": [0.9, 0.1],
    "one of eight emotions": [1 / 8] * 8,
}
KAPPAS = (0.4, 0.6, 0.8)
HALF_WIDTHS = (0.15, 0.1, 0.05)
STUDIES = 200
NORMAL = 1.96


def deviation(shares: Floats, kappa: float) -> float:
    """Standard error of kappa for one mark; for n marks it is this over the root of n."""
    table = kappa * np.diag(shares) + (1 - kappa) * np.outer(shares, shares)
    chance = float((shares**2).sum())
    sums = shares[:, None] + shares[None, :]
    own = (np.diag(table) * (1 - np.diag(sums) * (1 - kappa)) ** 2).sum()
    others = (1 - kappa) ** 2 * ((table - np.diag(np.diag(table))) * sums.T**2).sum()
    return float((own + others - (kappa - chance * (1 - kappa)) ** 2) ** 0.5 / (1 - chance))


def needed(shares: Floats, kappa: float, half_width: float) -> int:
    """Marks for an interval of kappa plus and minus the half width."""
    return int(np.ceil((NORMAL * deviation(shares, kappa) / half_width) ** 2))


def simulated(shares: Floats, kappa: float, marks: int) -> tuple[float, float]:
    """Mean half width of the intervals of many studies, and the share of them that holds the true kappa."""
    generator = np.random.default_rng(0)
    widths, holding = [], []
    for study in range(STUDIES):
        first, second = generator.choice(len(shares), size=(2, marks), p=shares)
        second = np.where(generator.random(marks) < kappa, first, second)
        found = agreement(np.stack([first, second], axis=1), [(0, 1)], range(marks), study)
        assert found is not None
        assert found.kappa is not None
        widths.append((found.kappa.high - found.kappa.low) / 2)
        holding.append(found.kappa.low <= kappa <= found.kappa.high)
    return float(np.mean(widths)), float(np.mean(holding))


def main() -> None:
    rows = []
    for name, given in ANSWERS.items():
        shares = np.array(given)
        for kappa in KAPPAS:
            marks = [needed(shares, kappa, half_width) for half_width in HALF_WIDTHS]
            width, holding = simulated(shares, kappa, marks[1])
            rows.append([name, str(kappa), *map(str, marks), f"±{width:.3f}, {whole_percent(holding)}"])
    heads = ("answers", "kappa", *(f"marks for ±{width}" for width in HALF_WIDTHS), "±0.1 simulated: width, coverage")
    print(markdown_table(heads, rows))


if __name__ == "__main__":
    main()
