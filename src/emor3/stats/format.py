"""How terminal, page and table print numbers: shares with 95% intervals, changes, p-values, seconds, counts, bytes."""

from collections.abc import Iterable, Sequence

from emor3.method.types import Estimate


def percent(estimate: Estimate | None) -> str:
    """A share in percent with its interval: "61.3 [57.0, 65.5]"; empty for none."""
    return "" if estimate is None else f"{percent_value(estimate.value)} {percent_interval(estimate)}"


def percent_value(share: float) -> str:
    """A share in percent: "61.3"."""
    return tenths(100 * share)


def percent_interval(estimate: Estimate) -> str:
    """The interval of a share in percent: "[57.0, 65.5]"."""
    return f"[{percent_value(estimate.low)}, {percent_value(estimate.high)}]"


def seed_spread(deviation: float | None) -> str:
    """A share's standard deviation over seeds in points: " ±1.2"; empty for one seed, which has none."""
    return "" if deviation is None else f" ±{percent_value(deviation)}"


def decimal(estimate: Estimate | None) -> str:
    """An estimate that is no share, with its interval: "0.213 [0.180, 0.251]"; empty for none."""
    if estimate is None:
        return ""
    return f"{thousandths(estimate.value)} [{thousandths(estimate.low)}, {thousandths(estimate.high)}]"


def whole_percent(share: float) -> str:
    """A share inside a sentence: "87%"."""
    return f"{share:.0%}"


def points(change: float) -> str:
    """A change of a share in points, signed: "+1.2"."""
    return f"{100 * change:+.1f}"


def points_with_interval(change: Estimate) -> str:
    """A change of a share in points with its interval, all signed: "+1.2 [-0.3, +2.7]"."""
    return f"{points(change.value)} [{points(change.low)}, {points(change.high)}]"


def p_value(p: float | None) -> str:
    """A p-value alone in its cell: "0.0123" or "< 0.0001"; empty for none."""
    if p is None:
        return ""
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}"


def p_equation(p: float) -> str:
    """A p-value inside a text: "p = 0.0123" or "p < 0.0001"."""
    text = p_value(p)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def with_more_seeds(name: str, runs: int) -> str:
    """The name of several runs of one method, by that of the first: "paper and 2 more seeds"."""
    more = runs - 1
    return f"{name} and {more} more seed{'s' * (more > 1)}" if more else name


def tenths(value: float) -> str:
    """Words of a text, or seconds that vary: "12.3"."""
    return f"{value:.1f}"


def hundredths(value: float) -> str:
    """A probability, or seconds of a step: "0.87"."""
    return f"{value:.2f}"


def count(number: float) -> str:
    """A large number of things: "151,936"."""
    return f"{number:,.0f}"


def thousandths(value: float) -> str:
    """Seconds that are compared: "0.123"."""
    return f"{value:.3f}"


def significant(value: float, digits: int = 3) -> str:
    """A number of any size in so many digits: "0.0123", "1.5e+06"."""
    return f"{value:.{digits}g}"


def byte_size(amount: float) -> str:
    """Bytes: "7.5 GB", below a tenth of that unit "75.0 MB"."""
    return f"{amount / 1e9:.1f} GB" if amount >= 1e8 else f"{amount / 1e6:.1f} MB"


def gigabytes(amount: float) -> str:
    """Bytes of a whole machine: "80"."""
    return f"{amount / 1e9:.0f}"


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table as Markdown, ending with a line break."""
    lines = ["| " + " | ".join(cells) + " |" for cells in (headings, *rows)]
    return "\n".join([lines[0], "|---" * len(headings) + "|", *lines[1:]]) + "\n"
