"""Concurrent transactions against a loaded dataset, entered in a ledger outside the database.

Clients are threads with a connection each. They never touch each other's rows (:mod:`~pytest_iopbackup.dataset.share`),
so that the ledger alone says in which version each row must be. Something can be done beside them, again and again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from random import Random
from typing import Any

import psycopg
from psycopg.rows import scalar_row

from pytest_iopbackup.dataset import prepared
from pytest_iopbackup.dataset.client import Client
from pytest_iopbackup.dataset.ledger import Ledger, Outcome
from pytest_iopbackup.dataset.pace import Pace
from pytest_iopbackup.dataset.plan import Planner
from pytest_iopbackup.dataset.share import read_shares
from pytest_iopbackup.errors import DeadlineError, UsageError

MOST_CLIENTS = 64

_PROGRESS_SECONDS = 0.2

_STALL_SECONDS = 60.0
"""Longer than a client's statement may take: what lasts longer is a server that does not answer at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadSpec:
    """How much to write. Raises UsageError where a number is out of bounds."""

    seed: int
    number: int
    """Which write of the scenario this is: request ids are made from seed and number, so no two may share one."""
    transactions: int
    """Of all clients together."""
    clients: int = 4
    times: int = 0
    """How often something is to be done beside it, evenly spread."""

    def __post_init__(self) -> None:
        fits = 0 <= self.times < self.transactions and 1 <= self.clients <= MOST_CLIENTS
        if self.number < 0 or not fits:
            raise UsageError(
                f"workload: number {self.number}, {self.transactions} transactions, {self.clients} clients, "
                f"{self.times} times something beside it",
                hint=f"number: 0 or more; transactions: 1 or more, and more than times; clients: 1 to {MOST_CLIENTS}",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadStats:
    """How the transactions ended; the four add up to what was asked for."""

    acknowledged: int
    rolled_back: int
    indeterminate: int
    not_attempted: int
    """Left over by clients that lost their connection."""


def run_workload(
    connect: Callable[[], psycopg.Connection[Any]],
    spec: WorkloadSpec,
    ledger: Ledger,
    progress: Callable[[int, int], None],
    beside: Callable[[int], object] | None = None,
) -> WorkloadStats:
    """Run the workload and wait for its end.

    ``beside`` is called ``spec.times`` times, with 1, 2, …, in a thread of its own while the clients are at work: they
    rest where they get ahead of it. What lost clients have left prepared, now or in an earlier run, is rolled back.

    ``connect`` makes a connection; it is called once per client and once to read the rows to work on, before anything
    is written. ``progress(transactions ended, transactions in all)`` is called in the caller's thread, several times
    a second. Raises UsageError where the server does not track commit timestamps or the dataset is not there;
    DeadlineError if no transaction ends for a minute; ProofError if the rows are not as the ledger has them; and
    psycopg's errors, other than the loss of a connection.
    """
    with closing(connect()) as connection:
        connection.autocommit = True
        _refuse_unfit(connection)
        prepared.roll_back_left_over(connection)
        shares = read_shares(connection, spec.clients, Random(f"{spec.seed}/{spec.number}"))  # noqa: S311 - not secret
        prepares = prepared.allowed(connection, spec.clients)
    pace = Pace(spec.transactions, spec.times)
    with ExitStack() as stack:
        clients = [
            Client(
                number,
                stack.enter_context(closing(connect())),
                share,
                Planner(spec.seed, spec.number, number, share, prepares=prepares),
                ledger,
            )
            for number, share in enumerate(shares)
        ]
        pool = stack.enter_context(ThreadPoolExecutor(spec.clients + 1, thread_name_prefix="workload"))
        stack.callback(pace.stop)
        futures = [
            pool.submit(client.run, len(range(number, spec.transactions, spec.clients)), pace)
            for number, client in enumerate(clients)
        ]
        if beside is not None:
            futures.append(pool.submit(_do_beside, beside, spec.times, pace))
        try:
            _watch(futures, clients, spec.transactions, pace, progress)
        except BaseException:
            for client in clients:
                client.hang_up()
            raise
    for future in futures:
        future.result()
    if any(client.lost for client in clients):
        _clean_up(connect, tuple(client.session for client in clients if client.lost))
    counts = {outcome: sum(client.outcomes[outcome] for client in clients) for outcome in Outcome}
    return WorkloadStats(
        acknowledged=counts[Outcome.ACKNOWLEDGED],
        rolled_back=counts[Outcome.ROLLED_BACK],
        indeterminate=counts[Outcome.INDETERMINATE],
        not_attempted=spec.transactions - sum(counts.values()),
    )


def _refuse_unfit(connection: psycopg.Connection[Any]) -> None:
    with connection.cursor(row_factory=scalar_row) as cursor:
        if cursor.execute("SHOW track_commit_timestamp").fetchone() != "on":
            raise UsageError(
                "workload: the server does not track commit timestamps",
                hint="set track_commit_timestamp = on and restart it; the ledger keeps the time of each commit",
            )
        if cursor.execute("SELECT to_regclass('identity.users')").fetchone() is None:
            raise UsageError(
                f"workload: database {connection.info.dbname} has no table identity.users",
                hint="load the dataset first",
            )


def _do_beside(action: Callable[[int], object], times: int, pace: Pace) -> None:
    for number in range(1, times + 1):
        if not pace.next():
            return
        action(number)


def _clean_up(connect: Callable[[], psycopg.Connection[Any]], sessions: tuple[int, ...]) -> None:
    """Roll back what lost clients left prepared, if the server can be reached; else the next run or mark will."""
    with suppress(psycopg.OperationalError), closing(connect()) as connection:
        connection.autocommit = True
        prepared.roll_back_left_over(connection, sessions)


def _watch(
    futures: Sequence[Future[None]],
    clients: Sequence[Client],
    total: int,
    pace: Pace,
    progress: Callable[[int, int], None],
) -> None:
    """Return when all clients have ended or one has failed."""
    running = set(futures)
    ended, since = 0, time.monotonic()
    while running:
        finished, running = wait(running, timeout=_PROGRESS_SECONDS, return_when=FIRST_EXCEPTION)
        now = sum(client.outcomes.total() for client in clients)
        progress(now, total)
        if any(future.exception() for future in finished):
            return
        working = not all(client.ended for client in clients)
        if not working:
            pace.stop()
        if now > ended or pace.waiting or not working:
            ended, since = now, time.monotonic()
        elif time.monotonic() - since > _STALL_SECONDS:
            raise DeadlineError(
                f"workload: no transaction ended within {_STALL_SECONDS:.0f} s; {now} of {total} had",
                hint="look at the server's log and at pg_stat_activity: the server hangs or its disk does",
            )
