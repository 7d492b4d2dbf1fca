"""A stack between two trials: who may have it, how often, and that it ends somewhere."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from pytest_iopbackup.dataset.spec import DatasetSpec
from pytest_iopbackup.relay import MOST, Relay, Runner, Wanted
from pytest_iopbackup.stack.base import Stack

WANTED = Wanted(kind="local", spec=DatasetSpec(seed=1, users=20), variables={"A": "1"}, sizes={}, wal_segment=1)


class Closing:
    closed = 0

    def close(self) -> None:
        self.closed += 1


def runner(stack: Closing, *by: str) -> Runner:
    return Runner(wanted=WANTED, stack=cast("Stack", stack), by=by)


def test_who_wants_the_same_gets_it_once() -> None:
    relay, stack = Relay(), Closing()
    assert relay.take(WANTED) is None
    mine = runner(stack, "one")
    assert relay.offer(mine)
    assert relay.take(replace(WANTED, variables={"A": "1"})) is mine
    assert relay.take(WANTED) is None
    assert stack.closed == 0


def test_who_wants_another_ends_it() -> None:
    relay, stack = Relay(), Closing()
    assert relay.offer(runner(stack, "one"))
    assert relay.take(replace(WANTED, variables={})) is None
    assert stack.closed == 1


def test_it_is_not_taken_for_ever() -> None:
    relay = Relay()
    assert relay.offer(runner(Closing(), *["trial"] * (MOST - 1)))
    assert not relay.offer(runner(Closing(), *["trial"] * MOST))


def test_what_nobody_took_is_taken_down_once() -> None:
    relay, stack = Relay(), Closing()
    assert relay.offer(runner(stack, "one"))
    relay.close()
    relay.close()
    assert stack.closed == 1
