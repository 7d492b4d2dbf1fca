from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_iopbackup.proof.sequences import SequenceState, sequence_findings, widened
from pytest_iopbackup.proven import Finding

UP = SequenceState(name="s.up", last_value=10, is_called=True, log_cnt=22, increment=1)
DOWN = SequenceState(name="s.down", last_value=-7, is_called=True, log_cnt=30, increment=-3)
FRESH = SequenceState(name="s.fresh", last_value=1, is_called=False, log_cnt=0, increment=1)


@pytest.mark.parametrize(
    ("state", "value", "allowed"),
    [
        (UP, 9, False),
        (UP, 10, True),
        (UP, 11, True),
        (UP, 32, True),
        (UP, 33, False),
        (DOWN, -6, False),
        (DOWN, -7, True),
        (DOWN, -97, True),
        (DOWN, -98, False),
        (FRESH, 0, False),
        (FRESH, 1, True),
        (FRESH, 2, False),
    ],
)
def test_bound(state: SequenceState, value: int, allowed: bool) -> None:
    restored = replace(state, last_value=value, log_cnt=0)
    assert state.allows(restored) is allowed
    assert (sequence_findings([state], [restored]) == ()) is allowed


def test_a_value_given_out_stays_given_out() -> None:
    assert not UP.allows(replace(UP, is_called=False))
    assert not FRESH.allows(replace(FRESH, is_called=True))


def test_findings_name_the_bound() -> None:
    assert sequence_findings([UP, FRESH], [replace(UP, last_value=40), replace(FRESH, last_value=3)]) == (
        Finding(kind="sequence", name="s.up", expected="10 to 32", actual="40"),
        Finding(kind="sequence", name="s.fresh", expected="1, not yet given out", actual="3, not yet given out"),
    )


def test_missing_sequences_are_for_the_catalog_to_name() -> None:
    assert sequence_findings([UP], []) == ()


def test_a_later_state_widens_the_bound_and_never_narrows_it() -> None:
    """Recovery to a time stops at the first later commit: after values that were given out since the mark."""
    later = [replace(UP, last_value=50, log_cnt=3), replace(DOWN, last_value=-100, log_cnt=0), replace(FRESH)]
    up, down, fresh = widened([UP, DOWN, FRESH], later)
    assert (up.last_value, up.logged, down.last_value, down.logged) == (10, 53, -7, -100)
    assert fresh == FRESH
    assert widened([UP], [replace(UP, last_value=3, log_cnt=0)]) == (UP,)
    assert widened([UP], []) == (UP,)
    assert up.allows(replace(UP, last_value=53))
    assert not up.allows(replace(UP, last_value=9))
    assert not up.allows(replace(UP, last_value=54))


def test_a_first_value_given_out_since_the_mark_may_be_there_or_not() -> None:
    (fresh,) = widened([FRESH], [replace(FRESH, is_called=True, log_cnt=32)])
    assert fresh.allows(FRESH)
    assert fresh.allows(replace(FRESH, last_value=33, is_called=True))
    assert not fresh.allows(replace(FRESH, last_value=34, is_called=True))
