"""Deadlines."""

from __future__ import annotations

import time

import pytest

from pytest_iopbackup.errors import DeadlineError
from pytest_iopbackup.limits import Limits, wait_until


def test_scaling_touches_every_limit() -> None:
    plain, scaled = Limits(), Limits().scaled(2.5)
    for name in Limits.__slots__:
        assert getattr(scaled, name) == getattr(plain, name) * 2.5


def test_waiting_ends_as_soon_as_the_condition_holds_and_gives_its_value() -> None:
    answers = iter([None, False, "there"])
    assert wait_until(lambda: next(answers) or None, limit=5, what="it") == "there"


def test_waiting_in_vain_names_what_was_waited_for_and_ends_in_time() -> None:
    started = time.monotonic()
    with pytest.raises(DeadlineError, match=r"waited 0\.1 s for the archiver, in vain"):
        wait_until(lambda: None, limit=0.1, what="the archiver")
    assert time.monotonic() - started < 1
