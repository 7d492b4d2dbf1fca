from __future__ import annotations

from pytest_iopbackup.proof.redact import HIDDEN, hidden, without_rows, without_values
from pytest_iopbackup.proven import Differing, Finding, LedgerJudgement


def test_the_same_text_has_the_same_digest() -> None:
    assert hidden("id=7") == hidden("id=7") != hidden("id=8")
    assert "7" not in hidden("id=7").replace(hidden("id=7"), "")
    assert len(hidden("x" * 1000)) == len("#01234567")


def test_only_what_comes_from_data_is_hidden() -> None:
    sequence = Finding(kind="sequence", name="s", expected="at or past its column", actual="7, but t.id has 9")
    view = Finding(kind="view", name="v", expected="SELECT 1", actual="SELECT 2")
    assert without_values(sequence) == Finding(kind="sequence", name="s", expected=HIDDEN, actual=HIDDEN)
    assert without_values(view) == view


def test_a_judgement_keeps_its_counts() -> None:
    lost = Differing(total=3, examples=("r1: s.t 7: expected version 2, found no row",))
    shown = without_rows(LedgerJudgement(acknowledged=5, rows=9, lost=lost))
    assert (shown.acknowledged, shown.rows, shown.lost.total) == (5, 9, 3)
    assert shown.lost.examples == (hidden(lost.examples[0]),)
    assert "version" not in repr(shown)
