"""What a fault was, and what every signal made of it, as data only; part of a run's record. Seconds, UTC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from pytest_iopbackup.proven import Differing, ProofFacts, RestoreFacts, Verdict


class Answer(str, Enum):
    """What a signal said of a fault. None but ``silent`` leaves an operator without a sign of it."""

    ALARM = "alarm"
    SILENT = "silent"
    HUNG = "hung"
    """It did not answer within its time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One signal, asked while a fault lasted."""

    signal: str
    answer: Answer
    said: str
    """The alarm's own words, pgBackRest's error code first where there is one: ``[082] WAL segment …``."""
    after: float
    """Seconds from the injection to the answer; of an alarm, to the first one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """Recovery points that a fault took for good: transactions that no restore can stop at or between."""

    transactions: Differing
    backup: str
    """The full backup that ends the gap: it holds all of their rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultFacts:
    """A fault's trial from green to green, as far as it got."""

    name: str
    title: str
    tags: tuple[str, ...]
    signal: str
    """The one that had to report it."""
    reason: str
    """What that had to say (a regular expression)."""
    within: float
    silent: bool
    """Whether ``pgbackrest check`` by itself was expected to see nothing."""
    evidence: str | None
    """How it was seen to be there, without asking any signal; None if it never was."""
    readings: tuple[Reading, ...]
    written: int
    """Transactions acknowledged while it lasted."""
    lost: Lost | None
    restores: tuple[RestoreFacts, ...]
    """After healing: to a point in time, and to the end."""
    proofs: tuple[ProofFacts, ...]
    """Of those restores, in the same order."""
    laps: Mapping[str, float]
    """Seconds of each stage that came to its end, and of the one that was under way when the trial failed, with the
    healing that followed: together, those of the whole trial."""
    verdict: Verdict
    trouble: str | None
    """Why the verdict is not ``passed``."""

    @property
    def detected(self) -> Reading | None:
        """The named signal's answer; None if it gave none."""
        return next((reading for reading in self.readings if reading.signal == self.signal), None)

    def answer(self, signal: str) -> Answer | None:
        """Return what a signal said; None if it was not asked."""
        return next((reading.answer for reading in self.readings if reading.signal == signal), None)
