"""A scenario: a linear list of steps, each one verb with its arguments.

Every action has a ``title``: one line for people that says what the step does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Backup:
    """Take a backup; ``auto`` leaves the choice to ``backup.sh``. ``name`` is how later steps call it."""

    type: str
    name: str | None = None

    @property
    def title(self) -> str:
        return f"backup {self.type}" + (f" as {self.name}" if self.name else "")


PREFIX = "load"
"""Of the names of marks that are taken while the workload writes."""


def mark_names(prefix: str, marks: int) -> tuple[str, ...]:
    """Return the names of so many marks."""
    return tuple(f"{prefix}-{number}" for number in range(1, marks + 1))


@dataclass(frozen=True, slots=True)
class Write:
    """Let the workload commit transactions, and keep its ledger; take marks meanwhile, named by prefix and number."""

    transactions: int
    clients: int = 4
    marks: int = 0
    prefix: str = PREFIX

    @property
    def title(self) -> str:
        marks = f", {self.marks} marks meanwhile" if self.marks else ""
        return f"write {self.transactions} transactions, {self.clients} clients{marks}"


@dataclass(frozen=True, slots=True)
class Mark:
    """Take a point to recover to, with the row sets expected there."""

    name: str

    @property
    def title(self) -> str:
        return f"mark {self.name}"


@dataclass(frozen=True, slots=True)
class Mistake:
    """Do what a human should not have done; it must change at least one row."""

    sql: str

    @property
    def title(self) -> str:
        return f"mistake: {self.sql}"


@dataclass(frozen=True, slots=True)
class Lose:
    """Lose the data directory: the server is killed, its files are deleted."""

    what: str = "data-directory"

    @property
    def title(self) -> str:
        return f"lose the {self.what}"


@dataclass(frozen=True, slots=True)
class Restore:
    """Restore the stack: to a mark, to a raw target, to a named backup's end, or by default to the end of WAL."""

    mark: str | None = None
    by: str = "default"
    value: str | None = None
    backup: str | None = None

    @property
    def title(self) -> str:
        if self.mark is not None:
            return f"restore to {self.mark} by {self.by}"
        if self.backup is not None:
            return f"restore backup {self.backup}"
        return "restore latest" if self.value is None else f"restore to {self.by} {self.value}"


@dataclass(frozen=True, slots=True)
class Expect:
    """Prove that the database holds exactly what a mark says."""

    rows: str

    @property
    def title(self) -> str:
        return f"expect the rows of {self.rows}"


@dataclass(frozen=True, slots=True)
class Check:
    """Run the stack's own checks; all must be ok."""

    @property
    def title(self) -> str:
        return "check: all green"


@dataclass(frozen=True, slots=True)
class Schedule:
    """Wait until the backup worker has taken this many backups by itself, and judge its order and its retention."""

    full: int
    diff: int

    @property
    def title(self) -> str:
        return f"schedule: the worker takes {self.full} full and {self.diff} differential backups"


@dataclass(frozen=True, slots=True)
class Configure:
    """Set variables of the deployed system, as an operator does in its ``.env``."""

    variables: Mapping[str, str]

    @property
    def title(self) -> str:
        return "configure " + ", ".join(f"{name}={value}" for name, value in self.variables.items())


@dataclass(frozen=True, slots=True)
class RestoreKept:
    """Restore each backup that the repository keeps, one after the other; each must give exactly a mark's rows."""

    rows: str

    @property
    def title(self) -> str:
        return f"restore each kept backup, expect the rows of {self.rows}"


@dataclass(frozen=True, slots=True)
class Control:
    """Restore as an operator does, with ``control.sh restore``: to a mark, or to the end of the archived WAL."""

    mark: str | None = None
    by: str = "time"

    @property
    def title(self) -> str:
        return "control.sh restore, latest" if self.mark is None else f"control.sh restore to {self.mark} by {self.by}"


@dataclass(frozen=True, slots=True)
class Refuse:
    """Try to restore with every kind of wrong confirmation token: all must be blocked, and nothing touched."""

    what: str = "wrong-tokens"

    @property
    def title(self) -> str:
        return "control.sh restore with wrong tokens: all blocked"


@dataclass(frozen=True, slots=True)
class Fault:
    """Break something, see it reported by the signal that must, heal it, and prove that nothing is lost."""

    name: str

    @property
    def title(self) -> str:
        return f"fault {self.name}"


@dataclass(frozen=True, slots=True)
class Crash:
    """Kill the primary under load, so many times, and see what is lost without its disk, and with it."""

    times: int = 5
    clients: int = 4
    archive_timeout: int | None = None
    """Seconds, set in PostgreSQL meanwhile; None leaves it as it is."""

    @property
    def title(self) -> str:
        meanwhile = "" if self.archive_timeout is None else f", archive_timeout {self.archive_timeout} s"
        return f"crash {self.times} times under {self.clients} clients{meanwhile}"


@dataclass(frozen=True, slots=True)
class Targets:
    """Restore to every kind of target, beside the running stack; each must give exactly its rows, or its refusal."""

    which: str = "every"

    @property
    def title(self) -> str:
        return "targets: every kind, at its edges"


@dataclass(frozen=True, slots=True)
class Sweep:
    """Prove random recovery points over the whole recoverable window, and every mark in it."""

    points: int
    workers: int = 1

    @property
    def title(self) -> str:
        side_by_side = f", {self.workers} side by side" if self.workers > 1 else ""
        return f"sweep: {self.points} random recovery points{side_by_side}"


Action: TypeAlias = (
    Backup
    | Write
    | Mark
    | Mistake
    | Lose
    | Restore
    | Expect
    | Check
    | Configure
    | Schedule
    | RestoreKept
    | Control
    | Refuse
    | Fault
    | Crash
    | Targets
    | Sweep
)


@dataclass(frozen=True, slots=True)
class Step:
    """One action, and where in the file it stands."""

    verb: str
    action: Action
    line: int


@dataclass(frozen=True, slots=True)
class Dataset:
    """What to seed; ``seed`` None takes ``--iop-seed``."""

    seed: int | None = None
    users: int = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One file in ``scenarios/``."""

    name: str
    title: str
    path: Path
    steps: tuple[Step, ...]
    tags: tuple[str, ...] = ()
    dataset: Dataset = field(default_factory=Dataset)
    stack: str | None = None
    """The only stack kind that it can run on; None for any."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Variables of the deployed system, as in its ``.env``."""

    @property
    def is_trial(self) -> bool:
        """Whether it does nothing but try faults: its stack is green in the end, if it passes."""
        return all(isinstance(step.action, Fault) for step in self.steps)

    @property
    def crashes(self) -> bool:
        """Whether its server is to crash."""
        return any(isinstance(step.action, Crash) for step in self.steps)

    @property
    def faults(self) -> tuple[str, ...]:
        """The faults that it tries, by name."""
        return tuple(step.action.name for step in self.steps if isinstance(step.action, Fault))
