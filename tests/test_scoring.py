import json
from pathlib import Path

import pytest

from emor3.scoring import score_file

GOLDEN = Path(__file__).parent / "golden" / "rewards.jsonl"
CASES = [json.loads(line) for line in GOLDEN.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def golden_results():
    return {result["id"]: result for result in score_file(GOLDEN)}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_a_golden_case_scores_as_expected(case, golden_results):
    result = golden_results[case["id"]]
    if "error" in case["expected"]:
        assert "label" in result["error"]
        return
    for name, value in case["expected"].items():
        assert result[name] == (value if isinstance(value, dict | None) else pytest.approx(value, abs=1e-6))
