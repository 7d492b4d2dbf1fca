"""What a run did and found, as data only. Reports are pure functions of a :class:`RunRecord`.

Sizes are bytes, durations seconds, times UTC. ``SCHEMA_VERSION`` grows when a field changes meaning or goes away.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

SCHEMA_VERSION = 1


class Verdict(str, Enum):
    """``unknown`` (the harness could not find out) never counts as passed."""

    PASSED = "passed"
    FAILED = "failed"
    UNKNOWN = "unknown"

    @staticmethod
    def worst(verdicts: Iterable[Verdict]) -> Verdict:
        """Combine verdicts: failed over unknown over passed. Nothing judged is ``unknown``."""
        found = set(verdicts)
        if Verdict.FAILED in found:
            return Verdict.FAILED
        return Verdict.PASSED if found == {Verdict.PASSED} else Verdict.UNKNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupFacts:
    """A backup as ``pgbackrest info`` lists it."""

    label: str
    type: str
    prior: str | None
    database_size: int
    repository_size: int
    """Bytes this backup added to the repository."""
    started: datetime
    stopped: datetime
    start_lsn: str
    stop_lsn: str
    start_wal: str
    stop_wal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteFacts:
    """What a workload did, as its ledger has it."""

    clients: int
    acknowledged: int
    rolled_back: int
    indeterminate: int
    """The connection was lost inside COMMIT: may be there, need not be."""
    not_attempted: int = 0
    """Left over when every client had lost its connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkFacts:
    """A point to recover to, and how much is expected there."""

    name: str
    lsn: str
    xid: int
    time: datetime
    timeline: int
    tables: int
    rows: int
    writers_waited: float
    """Seconds for which SHARE locks were held."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MistakeFacts:
    """A human mistake made on purpose."""

    sql: str
    rows: int | None
    """How many it hit; None for a statement that counts none, such as DROP."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreFacts:
    """A restore: what was asked for, what PostgreSQL says it reached, and how long each part took."""

    by: str
    target: str | None
    backup_set: str
    target_timeline: int | None
    reached: str
    """PostgreSQL's own words on where recovery ended."""
    last_transaction: datetime | None
    """Commit time of the last transaction replayed, from PostgreSQL's log."""
    timeline: int
    """The timeline the restored server writes on."""
    stop_seconds: float
    """Workers and server stopped, data directory emptied."""
    restore_seconds: float
    """``pgbackrest restore``: files copied back."""
    replay_seconds: float
    """Server started until recovery ended: WAL fetched and replayed."""
    ready_seconds: float
    """Recovery ended until the first transaction could be committed."""

    @property
    def outage_seconds(self) -> float:
        """From the order to stop until the first transaction could be committed."""
        return self.stop_seconds + self.restore_seconds + self.replay_seconds + self.ready_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Differing:
    """Rows that differ in one way: how many in all, and some of them by key."""

    total: int = 0
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TableComparison:
    """One table's row set against the expected one."""

    table: str
    expected_rows: int
    actual_rows: int
    expected_digest: str
    actual_digest: str
    missing: Differing = field(default_factory=Differing)
    unexpected: Differing = field(default_factory=Differing)
    changed: Differing = field(default_factory=Differing)

    @property
    def equal(self) -> bool:
        """Whether both row sets are the same; counts alone prove nothing."""
        return self.expected_rows == self.actual_rows and self.expected_digest == self.actual_digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Anything beside rows that is not as expected: a sequence, a constraint, a role."""

    kind: str
    name: str
    expected: str
    actual: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerJudgement:
    """What the workload committed against what is there, transaction by transaction.

    lost: acknowledged at or before the target, not there. unexpected: committed after the target, rolled back or
    never attempted, there. recovered: outcome unknown to the client, there.
    """

    acknowledged: int
    """Transactions that must be there."""
    rows: int
    """Rows whose last committed state was looked up."""
    lost: Differing = field(default_factory=Differing)
    unexpected: Differing = field(default_factory=Differing)
    recovered: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofFacts:
    """The whole comparison of a database against a mark."""

    mark: str
    algorithm: str
    tables: tuple[TableComparison, ...]
    sequences: int
    objects: int
    findings: tuple[Finding, ...]
    ledger: LedgerJudgement | None
    skipped: Mapping[str, str] = field(default_factory=dict)
    """Tables whose rows were not compared, and why: unlogged ones, foreign ones."""

    @property
    def rows(self) -> int:
        """Rows read on the restored side."""
        return sum(table.actual_rows for table in self.tables)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckFacts:
    """One named result of the stack's own checks."""

    name: str
    status: str
    seen: str
    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleFacts:
    """What the backup worker did by itself while it was watched."""

    taken: tuple[BackupFacts, ...]
    expired: tuple[str, ...]
    """Labels that retention removed meanwhile."""
    kept: tuple[str, ...]
    """Labels in the repository at the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationFacts:
    """What the operators' ``control.sh`` was asked for, and how it answered."""

    command: str
    attempts: int
    """How often it was called, or one of the services that it uses."""
    said: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """One step of a scenario. At most one of the fact fields is set, but for restores that were proven at once."""

    number: int
    verb: str
    title: str
    line: int
    """Where in the scenario's file it stands."""
    started: datetime
    seconds: float
    verdict: Verdict
    reason: str | None = None
    backup: BackupFacts | None = None
    write: WriteFacts | None = None
    mark: MarkFacts | None = None
    mistake: MistakeFacts | None = None
    restore: RestoreFacts | None = None
    proof: ProofFacts | None = None
    checks: tuple[CheckFacts, ...] = ()
    schedule: ScheduleFacts | None = None
    restores: tuple[RestoreFacts, ...] = ()
    """Of each kept backup, the newest first."""
    operation: OperationFacts | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioRecord:
    """One scenario, run once."""

    name: str
    title: str
    file: str
    stack: str
    seed: int
    users: int
    started: datetime
    setup_seconds: float
    """Bringing the stack up, template included."""
    seconds: float
    """The steps alone."""
    steps: tuple[StepRecord, ...]
    planned: int
    """How many steps the file has; those after one that did not pass are not run."""
    versions: Mapping[str, str]
    configuration: Mapping[str, str]
    """SHA-256 of each file of the stack's half that was under test."""
    verdict: Verdict
    reason: str | None = None
    kept: str | None = None
    """Directory that was kept for inspection."""
    logs: Mapping[str, str] = field(default_factory=dict)
    """Last lines of each log of the stack, if the scenario did not pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """All scenarios of one pytest session."""

    run: str
    started: datetime
    finished: datetime
    versions: Mapping[str, str]
    scenarios: tuple[ScenarioRecord, ...]
    verdict: Verdict
    schema_version: int = SCHEMA_VERSION
