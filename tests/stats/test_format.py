"""One form of every number, whether the terminal, the page or a table prints it."""

import re
from pathlib import Path

import pytest

import emor3
from emor3.method.types import Estimate
from emor3.stats import format as form

SHARE = Estimate(0.61328, 0.57, 0.655, 512)


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        (form.percent(SHARE), "61.3 [57.0, 65.5]"),
        (form.decimal(SHARE), "0.613 [0.570, 0.655]"),
        (form.percent(None) + form.decimal(None) + form.p_value(None) + form.seed_spread(None), ""),
        (form.seed_spread(0.0123), " ±1.2"),
        (form.points(0.352), "+35.2"),
        (form.points_with_interval(Estimate(0.012, -0.003, 0.027, 9)), "+1.2 [-0.3, +2.7]"),
        (form.p_value(0.0123), "0.0123"),
        (form.p_value(0.0001), "0.0001"),
        (form.p_value(0.00009), "< 0.0001"),
        (form.p_equation(0.0123), "p = 0.0123"),
        (form.p_equation(0.00009), "p < 0.0001"),
        (form.tenths(12.34) + form.hundredths(0.8712), "12.30.87"),
        (form.count(151936) + form.significant(0.012345), "151,9360.0123"),
        (form.byte_size(7.51e9) + form.byte_size(7.51e7), "7.5 GB75.1 MB"),
    ],
)
def test_numbers_are_printed_as_the_readme_prints_them(printed, expected):
    assert printed == expected


def test_results_are_formatted_in_one_place():
    own = re.compile(r"\{[^{}]*:,|:\.2f\}|%\.[23][fg]")  # thousands, hundredths, three digits
    folder = Path(emor3.__file__).parent
    packages = ("evaluation", "experiments", "report", "cli")
    files = [path for name in packages for path in (folder / name).rglob("*.*") if path.suffix in (".py", ".html")]
    assert [str(path.relative_to(folder)) for path in files if own.search(path.read_text(encoding="utf-8"))] == []


def test_no_other_module_formats_percent_changes_or_p_values():
    own = re.compile(r"\{100 \* [^}]*:\+?\.1f\}|100 \* [a-z_.]*\) ?\| ?format|< ?0?\.0+1\b['\"]")
    folder = Path(emor3.__file__).parent
    files = [path for name in ("*.py", "*.html") for path in folder.rglob(name) if path.name != "format.py"]
    assert [str(path.relative_to(folder)) for path in files if own.search(path.read_text(encoding="utf-8"))] == []
