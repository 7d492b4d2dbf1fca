"""Every time limit, in seconds, in one place; ``--iop-timeout-scale`` multiplies them all."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TypeVar

from pytest_iopbackup.errors import DeadlineError

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long each kind of work may take before it counts as hung."""

    command: float = 60
    """Any short program: ``initdb``, ``pgbackrest info``, ``psql``."""
    start: float = 60
    """A server until it accepts connections, outside recovery."""
    stop: float = 60
    """A service until its process has ended."""
    archive: float = 60
    """A WAL segment until it is in the repository; pgBackRest's own ``archive-timeout`` default."""
    check: float = 150
    """The check worker until it has reported all checks; more than ``archive-timeout`` twice."""
    backup: float = 3600
    restore: float = 3600
    recovery: float = 3600
    """From the start of a restored server to the end of recovery."""
    proof: float = 20
    """Something broken on purpose until it is seen to be broken."""
    examine: float = 3600
    """One statement of the physical proof: a check of all heaps, or of all indexes, of a database."""
    lock: float = 10
    """A mark's SHARE locks, all attempts together."""
    build: float = 3600
    """Another process until it has built the template."""
    scale: float = 1
    """``--iop-timeout-scale`` itself, for limits that stand elsewhere: a fault's detection."""

    def scaled(self, factor: float) -> Limits:
        """Return the same limits, each multiplied by ``factor``."""
        return replace(self, **{field.name: getattr(self, field.name) * factor for field in fields(self)})


def wait_until(
    condition: Callable[[], T | None], *, limit: float, what: str, hint: str | None = None, pause: float = 0.05
) -> T:
    """Poll ``condition`` until it gives something other than None or False, and return that.

    ``pause`` is the longest time between two polls. Raises DeadlineError after ``limit`` seconds; ``what`` completes
    the sentence "waited 60 s for …".
    """
    deadline = time.monotonic() + limit
    wait = 0.005
    while True:
        found = condition()
        if found is not None and found is not False:
            return found
        if time.monotonic() > deadline:
            raise DeadlineError(f"waited {limit:g} s for {what}, in vain", hint=hint)
        time.sleep(wait)  # between two polls: nothing outside our process can wake us
        wait = min(wait * 1.5, pause)
