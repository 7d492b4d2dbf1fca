"""What a run did and found, as data only. Reports are pure functions of a :class:`RunRecord`.

Sizes are bytes, durations seconds, times UTC. ``SCHEMA_VERSION`` grows when a field changes meaning or goes away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from pytest_iopbackup.crashes import CrashFacts
from pytest_iopbackup.detection import FaultFacts
from pytest_iopbackup.points import PointsFacts
from pytest_iopbackup.proven import ProofFacts, RestoreFacts, Verdict

SCHEMA_VERSION = 1


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
    """The longest, in seconds, that one writer can have waited: behind a request for the locks, and then for them."""
    locked: float = 0.0
    """Seconds for which SHARE locks were held."""
    queued: float = 0.0
    """Seconds for which requests for them were waited for, and writers behind them, all requests together."""
    requests: int = 1
    """How often the locks were asked for: a request that has to wait gives up soon."""
    restore_point: str = ""
    """What PostgreSQL calls it, where that is not ``name``."""


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
    marks: tuple[MarkFacts, ...] = ()
    """Taken while the clients were at work, in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MistakeFacts:
    """A human mistake made on purpose."""

    sql: str
    rows: int | None
    """How many it hit; None for a statement that counts none, such as DROP."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckFacts:
    """One named result of the stack's own checks."""

    name: str
    status: str
    seen: str
    hint: str
    code: int | None = None
    """pgBackRest's error code."""


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
    fault: FaultFacts | None = None
    crash: CrashFacts | None = None
    points: PointsFacts | None = None


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
    not_run: Mapping[str, str] = field(default_factory=dict)
    """Scenarios that were meant but could not be run here, and why: they have not passed."""
    schema_version: int = SCHEMA_VERSION
