"""What a stack offers to everything above it, whichever kind it is."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import psycopg

LineListener = Callable[[str], None]

TOKEN = "I_UNDERSTAND_THIS_WILL_DELETE_DATABASE_DATA"  # noqa: S105 - it is published; it guards against slips
"""The confirmation that restores of the deployed system ask for, unless it is set otherwise."""

DATABASE = "iop"
"""The application's database, which the dataset is loaded into."""


@dataclass(frozen=True, slots=True)
class CommandResult:
    """A program that has ended. ``exit_code`` is negative when a signal ended it, as in :mod:`subprocess`."""

    argv: tuple[str, ...]
    exit_code: int
    stdout: str
    stderr: str
    seconds: float

    def describe(self) -> str:
        """Say what ran, how it ended and the last lines that it printed."""
        printed = (self.stdout.rstrip() + "\n" + self.stderr.rstrip()).strip().splitlines()
        tail = "\n".join("    " + line for line in printed[-12:])
        ending = f"exit code {self.exit_code}" if self.exit_code >= 0 else f"signal {-self.exit_code}"
        return f"{shlex.join(self.argv)}: {ending} after {self.seconds:.1f} s" + (f"\n{tail}" if tail else "")


class Service(str, Enum):
    """The parts of the stack that run by themselves."""

    DATABASE = "database"
    BACKUP = "backup"
    CHECK = "check"


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Directories of a stack, as its hosts see them."""

    data: Path
    repository: Path
    spool: Path
    lock: Path
    state: Path
    configuration: Path
    """The stack's half: ``pgbackrest.conf``, ``backup.sh`` and the files beside them."""


class Host(Protocol):
    """Where a service's programs run; after Jepsen's ``Remote``."""

    @property
    def name(self) -> str:
        """The service's name."""

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float,
        check: bool = True,
        env: Mapping[str, str] | None = None,
        listener: LineListener | None = None,
    ) -> CommandResult:
        """Run a program to its end; ``listener`` gets each line of its standard output as it comes.

        Raises CommandError on a non-zero exit code unless ``check`` is false, DeadlineError after ``timeout`` seconds.
        """

    def read(self, path: Path) -> bytes:
        """Return a file's content. Raises FileNotFoundError."""


class Restorable(Protocol):
    """What a restore works on: a data directory, its server, and a repository. A stack is one, a copy of it another."""

    stanza: str
    """pgBackRest's name for this database's backups."""

    directory: Path
    """What of it lies on this machine, evidence apart from its services' own places."""

    @property
    def places(self) -> Places:
        """Its directories."""

    def host(self, service: Service) -> Host:
        """Return the host that a service's programs run on."""

    def start(self, service: Service) -> None:
        """Start a service; returns as soon as its process exists."""

    def stop(self, service: Service, *, immediate: bool = False) -> None:
        """Stop a service and wait for its end; ``immediate`` is PostgreSQL's mode, as after a crash."""

    def running(self, service: Service) -> bool:
        """Whether the service's process is alive."""

    def wipe_data(self) -> None:
        """Delete everything in the data directory. Raises UsageError while the database runs."""

    def restore(
        self,
        options: list[str],
        *,
        timeout: float,
        env: Mapping[str, str] | None = None,
        listener: LineListener | None = None,
    ) -> CommandResult:
        """Run ``pgbackrest restore`` with these options into the data directory; the database must be stopped."""

    def connect(self, *, autocommit: bool = True, options: str = "") -> psycopg.Connection[tuple[Any, ...]]:
        """Connect to the application's database as superuser; ``options`` are libpq's."""

    def database_log(self, offset: int = 0) -> str:
        """Return PostgreSQL's log from a byte offset on; an offset is what :meth:`database_log_size` gave."""

    def database_log_size(self) -> int:
        """Return the present size of PostgreSQL's log in bytes."""

    def close(self) -> None:
        """Stop every service and remove what was made."""


class Stack(Restorable, Protocol):
    """A running system under test; :meth:`close` stops it and removes what it made."""

    @property
    def kind(self) -> str:
        """``local`` or ``compose``."""

    token: str
    """What its restores ask for as confirmation."""
    kept: bool
    """Whether its directory is to stay when it is closed."""

    def surgeon(self) -> Host:
        """Return a host that works on the stack's places with every right that can be had: root's where it can be."""

    @property
    def shelter(self) -> Path:
        """Where :meth:`surgeon` can keep what is to be put back: on none of the stack's volumes that a fault breaks."""

    def kill(self, service: Service) -> None:
        """Kill every process of a service at once, helpers in the background included, as a crash of its machine does.

        None of them learns of it or writes a last word. Returns when all are gone; well if none runs.
        """

    def freeze(self, service: Service) -> None:
        """Stop all processes of a service where they are, until :meth:`thaw`."""

    def thaw(self, service: Service) -> None:
        """Let a service go on; well if it is not frozen."""

    def within(self, *argv: str, timeout: float) -> None:
        """Run a program as root wherever the stack's services see their volumes: once, or in each container's mounts.

        Raises CommandError.
        """

    def remount(self) -> None:
        """Give every service its volumes back as they belong to it, where that takes a restart."""

    def copy(self, variables: Mapping[str, str] | None = None) -> Restorable:
        """Return a place beside the stack to restore its repository into: it archives nothing and has no workers.

        Its programs find ``variables`` in their environment, beside and before what the stack's own find.
        """

    def health(self, service: Service) -> CommandResult:
        """Ask a worker's health check, as its container's engine does; exit code 0 if it is well."""

    def operate(self, *arguments: str, timeout: float) -> CommandResult:
        """Run the operators' ``control.sh`` on the stack, whatever its exit code. Raises UsageError where it has none.

        It may replace containers, as an operator's commands do.
        """

    def configure(self, variables: Mapping[str, str | None]) -> None:
        """Set variables of the deployed system, or with None unset them, and let the workers take them up."""

    def helper(self, name: str, *arguments: str, timeout: float) -> CommandResult:
        """Run one of the two services of a restore, ``wipe`` or ``restore``, with these arguments.

        Returns whatever its exit code.
        """

    def started(self) -> Mapping[str, str]:
        """Return when each service's main process was started, in whatever form; equal means the same process."""

    def logs(self) -> Mapping[str, str]:
        """Return the last lines of each of its logs."""
