"""Marks on a database that is written to: exact, told by whom they are kept waiting, and told what writers waited."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count, cycle
from typing import Any

import psycopg
import pytest
from moving_standby import WAYS, standby
from psycopg import sql

from pytest_iopbackup.dataset.prepared import prepare
from pytest_iopbackup.drill import Drill
from pytest_iopbackup.errors import ProofError, UsageError
from pytest_iopbackup.proof import locks, mark
from pytest_iopbackup.proof.sequences import SequenceState, read_states
from pytest_iopbackup.proof.session import Cursor
from pytest_iopbackup.proof.verdict import verdict
from pytest_iopbackup.proven import Verdict
from pytest_iopbackup.record import MarkFacts

pytestmark = [pytest.mark.integration, pytest.mark.iop_dataset(users=100)]

SEQUENCE = "identity.audit_log_id_seq"


def inexact(drill: Drill, marks: tuple[MarkFacts, ...]) -> list[str]:
    """Recover to every mark, in the four ways by turns; return what differs."""
    with standby(drill) as copy:
        found = []
        for point, by in zip(marks, cycle(WAYS), strict=False):
            copy.move(point, by)
            found.append(copy.differences(point))
    return [text for text in found if text is not None]


@contextmanager
def meanwhile(action: Callable[[], object]) -> Iterator[None]:
    """Do something again and again in a thread."""
    over = threading.Event()

    def run() -> None:
        while not over.is_set():
            action()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_marks_under_load_are_exact_and_a_sequence_with_a_cache_is_inside_its_bound(iop_stack: Drill) -> None:
    facts = iop_stack.write(400, 4, marks=8)
    assert [point.name for point in facts.marks] == [f"load-{number}" for number in range(1, 9)]
    assert (facts.not_attempted, facts.indeterminate) == (0, 0)
    assert inexact(iop_stack, facts.marks) == []
    with pytest.raises(UsageError, match="mark 'load-1' was taken before"):
        iop_stack.write(10, marks=1)

    states = {point.name: bound(iop_stack, point.name) for point in facts.marks}
    assert all(state.logged >= state.last_value for state in states.values())
    name = next(name for name, state in states.items() if state.log_cnt)
    restore_and_set_the_sequence(iop_stack, name, states[name])


def bound(drill: Drill, name: str) -> SequenceState:
    """Where the sequence was at a mark."""
    (state,) = (state for state in drill.history.mark(name).capture.sequences if state.name == SEQUENCE)
    return state


def restore_and_set_the_sequence(drill: Drill, name: str, state: SequenceState) -> None:
    """One value behind what was given out, or beyond what was logged, is seen; both ends of the bound are right."""
    drill.restore(name)
    drill.expect(name)
    with drill.connect() as connection:
        for value, allowed in (
            (state.last_value, True),
            (state.logged, True),
            (state.last_value - 1, False),
            (state.logged + 1, False),
        ):
            connection.execute("SELECT setval(%s, %s)", [SEQUENCE, value])
            if allowed:
                drill.expect(name)
                continue
            words = f"sequence {SEQUENCE}: expected {state.last_value} to {state.logged}, found {value}"
            with pytest.raises(AssertionError, match=words):
                drill.expect(name)


def test_without_locks_that_conflict_marks_are_not_exact(iop_stack: Drill, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof of the test above: what the locks keep out is seen."""
    slow_down(monkeypatch, lambda: time.sleep(0.1))
    monkeypatch.setattr(mark, "_exact", lambda *_: True)
    facts = iop_stack.write(100, 4, marks=1, prefix="locked")
    assert inexact(iop_stack, facts.marks) == []
    monkeypatch.setattr(locks, "MODE", sql.SQL("ACCESS SHARE"))
    with iop_stack.connect() as other:
        slow_down(monkeypatch, lambda: await_commit(other))
        facts = iop_stack.write(3000, 4, marks=2)  # enough for some to commit during a mark on a busy machine
    assert len(inexact(iop_stack, facts.marks)) == 2


def await_commit(connection: psycopg.Connection[Any]) -> None:
    """Wait until a transaction that begins now, or later, has committed."""
    first = connection.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint").fetchall()[0][0]
    committed = (
        "SELECT count(*) FROM generate_series(%s, pg_snapshot_xmax(pg_current_snapshot())::text::bigint - 1) AS xid "
        "WHERE pg_xact_status(xid::text::xid8) = 'committed'"
    )
    deadline = time.monotonic() + 10
    while connection.execute(committed, [first]).fetchall() == [(0,)]:
        assert time.monotonic() < deadline, "no transaction has committed"


def slow_down(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    """Do something between a mark's snapshot and its restore point."""

    def read(cursor: Cursor) -> tuple[SequenceState, ...]:
        action()
        return read_states(cursor)

    monkeypatch.setattr(mark, "read_states", read)


def test_what_commits_beside_the_point_without_a_lock_makes_it_a_second_one(
    iop_stack: Drill, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = iter(("one", "two"))
    with iop_stack.connect() as other:
        slow_down(monkeypatch, lambda: [other.execute(f"CREATE ROLE {name}".encode()) for name in names])
        first = iop_stack.mark("first")
    assert first.restore_point == "first~2"
    for by in ("name", "lsn"):
        _, proof = iop_stack.rehearse("first", by)
        assert verdict(proof) == (Verdict.PASSED, None)

    monkeypatch.setattr(mark, "_exact", lambda *_: True)
    with iop_stack.connect() as other:
        late = iter(("three",))
        slow_down(monkeypatch, lambda: [other.execute(f"CREATE ROLE {name}".encode()) for name in late])
        iop_stack.mark("second")
    _, proof = iop_stack.rehearse("second")
    assert verdict(proof)[0] is Verdict.FAILED
    assert "three" in str(verdict(proof)[1])


def test_tables_may_come_and_go(iop_stack: Drill) -> None:
    numbers = count()
    with iop_stack.connect() as connection:

        def churn() -> None:
            table = f"public.churn_{next(numbers)}"
            connection.execute(f"CREATE TABLE {table} AS SELECT 1 AS one".encode())
            time.sleep(0.02)
            connection.execute(f"DROP TABLE {table}".encode())

        with meanwhile(churn):
            points = tuple(iop_stack.mark(f"churn-{number}", settled=False) for number in range(4))
    iop_stack.settle("churn-3")
    assert next(numbers) > 4
    assert inexact(iop_stack, points) == []


def test_a_writer_waits_no_longer_than_is_told(iop_stack: Drill) -> None:
    """A transaction that stays open on one table: requests behind it give up, and writers of the others get on."""
    waits: list[float] = []
    insert = "INSERT INTO identity.login_attempts (occurred_at, email, succeeded) VALUES (now(), 'a@b', true)"
    with iop_stack.connect() as slow, iop_stack.connect() as probe:

        def write() -> None:
            begun = time.monotonic()
            probe.execute(insert.encode())
            waits.append(time.monotonic() - begun)

        slow.execute("BEGIN; UPDATE identity.settings SET changed_at = changed_at")
        release = threading.Timer(1.5, lambda: slow.execute("COMMIT"))
        release.start()
        with meanwhile(write):
            facts = iop_stack.mark("patient", settled=False)
        release.join()
    assert facts.requests > 2
    assert 0.1 < max(waits) < facts.writers_waited + 0.1
    assert facts.writers_waited < 0.6
    assert facts.queued < 0.75
    assert facts.locked <= facts.writers_waited


@pytest.mark.parametrize(
    ("begin", "words"),
    [
        (
            "PREPARE TRANSACTION 'of somebody'",
            r"prepared transaction 'of somebody': RowExclusiveLock on .*settings, for",
        ),
        ("SELECT 1", r"process \d+, idle in transaction: RowExclusiveLock on .*settings, for"),
    ],
)
def test_who_keeps_a_mark_waiting_for_ever_is_named(iop_stack: Drill, begin: str, words: str) -> None:
    iop_stack.limits = replace(iop_stack.limits, lock=0.5)
    with iop_stack.connect() as other:
        other.execute("BEGIN; UPDATE identity.settings SET changed_at = changed_at")
        other.execute(begin.encode())
        with pytest.raises(ProofError, match=words) as caught:
            iop_stack.mark("never")
        assert re.search(r"no SHARE lock on all tables within \d\.\d s, asked for \d times", str(caught.value))
        assert "ROLLBACK PREPARED" in str(caught.value)
        other.execute("ROLLBACK PREPARED 'of somebody'" if "PREPARE" in begin else "ROLLBACK")
    iop_stack.mark("after", settled=False)


def test_what_the_workload_left_prepared_is_rolled_back_first(iop_stack: Drill) -> None:
    """As a lost client leaves it, or a restore to between its two phases."""
    requests = ("6c9a4f0e-8f0b-4e6e-9d6b-000000000001", "6c9a4f0e-8f0b-4e6e-9d6b-000000000002")

    def leave(connection: psycopg.Connection[Any], request: str) -> None:
        connection.execute("BEGIN; DELETE FROM identity.sessions; DELETE FROM identity.membership")
        connection.execute(prepare(request))

    with iop_stack.connect() as connection:
        leave(connection, requests[0])
        iop_stack.mark("point", settled=False)
        leave(connection, requests[1])
        facts = iop_stack.write(40)
        assert facts.acknowledged > 20
        assert connection.execute("SELECT gid FROM pg_prepared_xacts").fetchall() == []
        assert connection.execute("SELECT count(*) > 0 FROM identity.membership").fetchone() == (True,)
