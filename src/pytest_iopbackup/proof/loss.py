"""The ledger at a crash: what was under way, what a restore has not brought back, and how old that is."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from datetime import datetime

from pytest_iopbackup.dataset.ledger import Entry, Outcome
from pytest_iopbackup.errors import ProofError
from pytest_iopbackup.proof.difference import EXAMPLES
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
