"""The ledger at a crash: what was under way, what a restore has not brought back, and how old that is."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from datetime import datetime

from pytest_iopbackup.dataset.ledger import Entry, Outcome
from pytest_iopbackup.errors import ProofError
from pytest_iopbackup.proof.difference import EXAMPLES
from pytest_iopbackup.proof.session import Connection
from pytest_iopbackup.proven import Differing


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One crash, as the ledger has it."""

    since: str
    """All WAL before this LSN was in the repository when the writing began."""
    moment: datetime
    """When every process of the server was dead."""
    after: float
    """Seconds since the first transaction of the writing had ended."""
    entries: tuple[Entry, ...]
    """The whole ledger, in order."""
    before: int
    """How many entries are older than the writing."""

    def recent(self, outcome: Outcome) -> tuple[Entry, ...]:
        """Return the transactions of the writing that ended so."""
        return tuple(
            entry for entry in self.entries[self.before :] if entry.outcome is outcome and entry.kind != "savepoint"
        )

    @property
    def in_flight(self) -> int:
        """How many transactions were under way: their clients lost the server inside COMMIT, or before it was sent."""
        interrupted = [entry for entry in self.recent(Outcome.ROLLED_BACK) if entry.xid is None]
        return len(interrupted) + len(self.recent(Outcome.INDETERMINATE))


def settle(scene: Scene, present: Set[str], connection: Connection) -> Mapping[str, Entry]:
    """Return how the writing's transactions have ended whose end no client saw, by request: for good, from now on.

    ``connection`` is to the server after crash recovery, where ``present`` are there. What it has not found committed
    never will be: it may use such a transaction's xid again, for another one.
    """
    settled: dict[str, Entry] = {}
    for entry in scene.recent(Outcome.INDETERMINATE):
        found = replace(entry, outcome=Outcome.ROLLED_BACK)
        if entry.request_id in present:
            asked = "SELECT pg_current_wal_insert_lsn()::text, pg_xact_commit_timestamp(%s::text::xid8::xid)"
            ((lsn, time),) = connection.execute(asked, [str(entry.xid)]).fetchall()
            found = replace(entry, outcome=Outcome.ACKNOWLEDGED, lsn=lsn, time=time)
        settled[entry.request_id] = found
    return settled


def loss(scene: Scene, present: Set[str]) -> tuple[Differing, float]:
    """Return the acknowledged transactions that are not ``present``, the oldest first, and the age of that, in seconds.

    Raises ProofError for one without a commit time.
    """
    lost: list[tuple[float, Entry]] = []
    for entry in scene.entries:
        if entry.outcome is Outcome.ACKNOWLEDGED and entry.request_id not in present:
            if entry.time is None:
                raise ProofError(
                    f"the ledger has no commit time for {entry.request_id}",
                    hint="the server needs track_commit_timestamp = on while the workload runs",
                )
            lost.append(((scene.moment - entry.time).total_seconds(), entry))
    lost.sort(key=lambda one: -one[0])
    examples = tuple(
        f"{entry.request_id} ({entry.kind}, client {entry.client}), {age:.3f} s before the crash"
        for age, entry in lost[:EXAMPLES]
    )
    return Differing(total=len(lost), examples=examples), lost[0][0] if lost else 0.0
