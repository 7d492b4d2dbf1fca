"""What a fault is: how it is done, proven and undone, and which signal has to report it."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

from pytest_iopbackup.errors import DeadlineError, HealError, IopError, ProofError
from pytest_iopbackup.faults.site import Site
from pytest_iopbackup.limits import wait_until

_FREQUENCY = {"PGBACKREST_CHECK_FREQUENCY": "1"}
_LIMITS = {
    "PGBACKREST_ARCHIVE_TIMEOUT": 2,
    "IOP_PROBE_TIMEOUT": 5,
    "IOP_ARCHIVE_CHECK_TIMEOUT": 6,
    "IOP_HEARTBEAT": 1,
}
"""Seconds."""


def pace(scale: float = 1) -> dict[str, str]:
    """Return variables of a stack that faults are tried on: what takes a minute in production is seen within seconds.

    Its limits grow with ``--iop-timeout-scale``, as the trial's do: on a slow machine, a healthy stack would miss them.
    """
    return {**_FREQUENCY, **{name: f"{seconds * max(scale, 1):g}" for name, seconds in _LIMITS.items()}}


PACE: Mapping[str, str] = pace()
"""The same where time limits are not scaled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """The signal that must report a fault: its name, what it must say (a regular expression), within how long.

    What a check says is its status, pgBackRest's error code and what was seen: ``critical: [082] WAL segment …``.
    """

    signal: str
    reason: str
    within: float = 15
    """Seconds from the injection: for the cycle of checks that is under way, which may wait for ``archive-timeout`` and
    as long for PostgreSQL's own word, and for the next one."""


class Fault(ABC):
    """Something broken on purpose. One object serves one injection, and may keep what it needs to undo it."""

    name: ClassVar[str]
    title: ClassVar[str]
    """What is broken and what that does, as one sentence without a full stop."""
    expected: ClassVar[Expected]
    tags: ClassVar[tuple[str, ...]] = ()
    silent: ClassVar[bool] = False
    """Whether ``pgbackrest check`` by itself reports nothing: the fault is worth a check of one's own."""
    loses_window: ClassVar[bool] = False
    """Whether WAL written meanwhile is lost by nature, so that only a new full backup makes the future safe."""
    writes: ClassVar[bool] = True
    """Whether the database takes writes while it lasts."""
    variables: ClassVar[Mapping[str, str]] = {}
    """Variables of the deployed system that its detection takes, beside those of :func:`pace`."""
    sizes: ClassVar[Mapping[str, str]] = {}
    """On Compose, places whose volume has to be of a limited size from the start: ``{"repository": "128m"}``."""
    fleeting: ClassVar[bool] = False
    """Whether a backup, or the end of a WAL segment, hides or heals it: then nothing is written, and no backup taken,
    before the named signal has fired."""
    stacks: ClassVar[frozenset[str]] = frozenset({"local"})
    needs_root: ClassVar[bool] = False
    """Whether it takes root on the local stack; on Compose, Docker has the rights."""

    @classmethod
    def obstacle(cls, kind: str) -> str | None:
        """Return why it cannot be done on a stack of this kind here; None if it can."""
        if kind not in cls.stacks:
            return f"the fault {cls.name} is for stacks of kind {' and '.join(sorted(cls.stacks))}"
        if kind == "local" and cls.needs_root and os.geteuid():
            return f"the fault {cls.name} takes root on a local stack"
        return None

    @abstractmethod
    def inject(self, site: Site) -> None:
        """Break it."""

    @abstractmethod
    def prove(self, site: Site) -> str:
        """Return evidence that it is broken, without asking any signal. Raises ProofError where it is not."""

    @abstractmethod
    def heal(self, site: Site) -> None:
        """Undo it. Also called when :meth:`inject` did not get to its end, and more than once."""


@contextmanager
def injected(fault: Fault, site: Site) -> Iterator[str]:
    """Break something, prove it, and undo it whatever happens; gives the evidence.

    Raises ProofError where the fault could not be done or is not there, HealError where it cannot be undone.
    """
    try:
        yield _done(fault, site)
    except BaseException as error:
        try:
            fault.heal(site)
        except Exception as failure:
            raise HealError(f"{error}; and {fault.name} could not be undone: {failure}") from error
        raise
    try:
        fault.heal(site)
    except Exception as failure:
        raise HealError(f"{fault.name} could not be undone: {failure}") from failure


def _done(fault: Fault, site: Site) -> str:
    """Break something, and return the evidence.

    Raises ProofError whatever goes wrong with it: that is the fault's own trouble, and not the broken system's.
    """
    try:
        fault.inject(site)
        return _evidence(fault, site)
    except ProofError:
        raise
    except IopError as error:
        raise ProofError(f"{fault.name} could not be done: {error.message}", hint=error.hint) from error


def _evidence(fault: Fault, site: Site) -> str:
    """Return the evidence, as soon as there is some. Raises ProofError with what was seen instead."""
    seen = ""

    def found() -> str | None:
        nonlocal seen
        try:
            evidence = fault.prove(site)
        except ProofError as error:
            seen = error.message
            return None
        return _require_text(fault, evidence)

    try:
        return wait_until(found, limit=site.limits.proof, what=f"{fault.name} to be there")
    except DeadlineError as error:
        raise ProofError(f"{error.message}: {seen}" if seen else error.message, hint=error.hint) from None


def _require_text(fault: Fault, evidence: object) -> str:
    """Return the evidence. Raises ProofError where it is none: waiting does not mend a fault's class."""
    if isinstance(evidence, str) and evidence.strip():
        return evidence
    raise ProofError(
        f"the prove() of the fault {fault.name} gave no evidence, but {evidence!r}: a defect of the fault",
        hint="return what was seen, as text; raise ProofError where it is not broken, or not yet",
    )
