"""How a run gets its stacks: what is ordered, and what both kinds have in common on the way there."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pytest_iopbackup.errors import IopError
from pytest_iopbackup.limits import wait_until
from pytest_iopbackup.stack.base import Service, Stack

Stage = Callable[[str], Callable[[int, int], None]]
"""Called with what begins; returns what to call with its progress."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a stack is to be."""

    workspace: Path
    """The run's directory."""
    directory: Path
    """The stack's own, not there yet, below the workspace."""
    key: str
    """Names the dataset."""
    seed: Callable[[Stack], None]
    """Loads the dataset into the empty application's database."""
    variables: Mapping[str, str]
    """Variables of the deployed system that differ from their defaults."""
    sizes: Mapping[str, str]
    """Places (``repository``, …) that are to be volumes of a limited size (``128m``) from the start, on Compose."""
    wal_segment: int = 16
    """Size of a WAL segment in MiB, on a local stack; on Compose, the system under test decides."""
    durable: bool = False
    """Whether a local stack's server writes through what it acknowledges (``fsync``), for it is to crash."""
    stage: Stage
    failed: Callable[[Stack], None]
    """Told of a stack that could not be brought up, before it is taken down."""


class Supply(Protocol):
    """One stack kind's way to bring stacks up."""

    kind: str

    def prepare(self) -> None:
        """Find out before anything runs whether it can. Raises MachineError or UsageError."""

    def versions(self) -> Mapping[str, str]:
        """Return the versions of PostgreSQL, pgBackRest and whatever else the stacks are made with."""

    def configuration(self) -> Mapping[str, str]:
        """Return the SHA-256 of each file of the stack's half, by name."""

    def bring(self, order: Order) -> Stack:
        """Return a running stack with the dataset, a full and a differential backup, and both workers at work."""


def await_first_backup(stack: Stack, limit: float) -> None:
    """Wait until the backup worker's first run has ended. Raises IopError when it failed."""
    state = stack.places.state / f"{Service.BACKUP.value}.json"

    def ended() -> bool:
        try:
            last = json.loads(stack.host(Service.BACKUP).read(state))["last"]
        except FileNotFoundError:
            last = None
        if last is None and not stack.running(Service.BACKUP):
            raise IopError(f"the backup worker ended by itself:\n{_logs(stack)}")
        if last is not None and last["exit_code"] != 0:
            raise IopError(f"the first backup failed:\n{_logs(stack)}")
        return last is not None

    wait_until(ended, limit=limit, what="the backup worker's first backup")


def _logs(stack: Stack) -> str:
    return "\n".join(f"--- {name}\n{text}" for name, text in stack.logs().items())
