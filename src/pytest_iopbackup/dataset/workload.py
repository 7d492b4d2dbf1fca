"""Concurrent transactions against a loaded dataset, entered in a ledger outside the database.

Clients are threads with a connection each. They never touch each other's rows (:mod:`~pytest_iopbackup.dataset.share`),
so that the ledger alone says in which version each row must be.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing
from dataclasses import dataclass
from random import Random
from threading import Event
from typing import Any

import psycopg
from psycopg.rows import scalar_row

from pytest_iopbackup.dataset.client import Client
from pytest_iopbackup.dataset.ledger import Ledger, Outcome
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

    def __post_init__(self) -> None:
        if self.number < 0 or self.transactions < 1 or not 1 <= self.clients <= MOST_CLIENTS:
            raise UsageError(
                f"workload: number {self.number}, {self.transactions} transactions, {self.clients} clients",
                hint=f"number: 0 or more; transactions: 1 or more; clients: 1 to {MOST_CLIENTS}",
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
) -> WorkloadStats:
    """Run the workload and wait for its end.

    ``connect`` makes a connection; it is called once per client and once to read the rows to work on, before anything
    is written. ``progress(transactions ended, transactions in all)`` is called in the caller's thread, several times
    a second. Raises UsageError where the server does not track commit timestamps or the dataset is not there;
    DeadlineError if no transaction ends for a minute; ProofError if the rows are not as the ledger has them; and
    psycopg's errors, other than the loss of a connection.
    """
    with closing(connect()) as connection:
        _refuse_unfit(connection)
        shares = read_shares(connection, spec.clients, Random(f"{spec.seed}/{spec.number}"))  # noqa: S311 - not secret
    stop = Event()
    with ExitStack() as stack:
        clients = [
            Client(
                number,
                stack.enter_context(closing(connect())),
                share,
                Planner(spec.seed, spec.number, number, share),
                ledger,
            )
            for number, share in enumerate(shares)
        ]
        pool = stack.enter_context(ThreadPoolExecutor(spec.clients, thread_name_prefix="workload"))
        stack.callback(stop.set)
        futures = [
            pool.submit(client.run, len(range(number, spec.transactions, spec.clients)), stop)
            for number, client in enumerate(clients)
        ]
        try:
            _watch(futures, clients, spec.transactions, progress)
        except BaseException:
            for client in clients:
                client.hang_up()
            raise
    for future in futures:
        future.result()
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


def _watch(
    futures: Sequence[Future[None]], clients: Sequence[Client], total: int, progress: Callable[[int, int], None]
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
        if now > ended:
            ended, since = now, time.monotonic()
        elif time.monotonic() - since > _STALL_SECONDS:
            raise DeadlineError(
                f"workload: no transaction ended within {_STALL_SECONDS:.0f} s; {now} of {total} had",
                hint="look at the server's log and at pg_stat_activity: the server hangs or its disk does",
            )
