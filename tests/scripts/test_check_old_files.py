"""The check of files that older code wrote names the step that failed."""

import pytest

from check_old_files import Commands, check_out, expect
from places import ROOT


def test_a_command_that_fails_is_named_with_what_it_said(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        Commands("new", ROOT, tmp_path)("score", "nothing.jsonl")
    assert ended.value.code == 1
    printed = capsys.readouterr().out
    assert "new: emor3 score nothing.jsonl\n" in printed
    assert "cannot read nothing.jsonl" in printed
    assert printed.endswith("failed with status 2: new: score\n")


def test_a_claim_that_does_not_hold_and_an_unknown_commit_end_the_check(tmp_path):
    expect(True, "one is one")
    with pytest.raises(SystemExit, match="does not hold: one is two"):
        expect(False, "one is two")
    with pytest.raises(SystemExit, match="git cannot read commit 0123456"):
        check_out("0123456", tmp_path)
