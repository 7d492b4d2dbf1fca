"""All signals of one stack: watches the check worker's reports, and asks the others side by side."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timedelta, timezone

from pytest_iopbackup.cluster import checks
from pytest_iopbackup.detection import Answer, Reading
from pytest_iopbackup.errors import DeadlineError, IopError
from pytest_iopbackup.limits import wait_until
from pytest_iopbackup.signals import tools
from pytest_iopbackup.signals.base import (
    BACKUP,
    BACKUP_WORKER,
    CHECK_WORKER,
    PGBACKREST_CHECK,
    PGBACKREST_INFO,
    PGBACKREST_VERIFY,
    RESTORE,
    Said,
    Signal,
    of_checks,
    of_exit_code,
)
from pytest_iopbackup.stack.base import Service, Stack

_PATIENCE = 6.0
"""Seconds for one of pgBackRest's commands to answer while a fault lasts, before it counts as hung."""
UNHURRIED = 60.0
"""The same where nothing is broken: there, a machine that is busy must not count."""

_BAD = ("critical: ", "unknown: ")
"""How a named check begins that its worker's health check has to follow."""


class Watch:
    """Asks a stack's signals and notes the answers; of each signal its first alarm, or else its last answer.

    ``rehearse`` is the one that takes more than a stack: a restore that is compared with a mark.
    """

    def __init__(self, stack: Stack, scale: float, rehearse: Signal) -> None:
        self._stack = stack
        self._rehearse = rehearse
        self._scale = scale
        self._pause = 0.02 if stack.kind == "local" else 0.1
        """Seconds between two looks at the check worker's report: on Compose, each is a program in a container."""
        self._since = datetime.now(timezone.utc)
        self._clock = time.monotonic()
        self._readings: dict[str, Reading] = {}
        self._seen: datetime | None = None
        self._whole = False
        """Whether a report was noted that was begun after :meth:`begin`: each of its checks saw what is there."""

    def begin(self) -> None:
        """Forget, and count from now: what is reported from here on is about what is there now."""
        self._since, self._clock = datetime.now(timezone.utc), time.monotonic()
        self._readings.clear()
        self._whole = False

    @property
    def readings(self) -> Mapping[str, Reading]:
        """What each signal has said since :meth:`begin`."""
        return self._readings

    def control(self, patience: float = _PATIENCE) -> Mapping[str, Signal]:
        """Return the signals that are asked, rather than watched, and change nothing.

        Without ``pgbackrest check``, which the check worker runs in each of its cycles.
        """
        stack, patience = self._stack, patience * self._scale
        return {
            CHECK_WORKER: lambda: of_exit_code(stack.health(Service.CHECK)),
            BACKUP_WORKER: lambda: of_exit_code(stack.health(Service.BACKUP)),
            PGBACKREST_INFO: lambda: tools.pgbackrest_info(stack, patience),
            PGBACKREST_VERIFY: lambda: tools.pgbackrest_verify(stack, patience),
        }

    def alone(self) -> Mapping[str, Signal]:
        """Return ``pgbackrest check`` by itself."""
        return {PGBACKREST_CHECK: lambda: tools.pgbackrest_check(self._stack, _PATIENCE * self._scale)}

    def backup(self, patience: float = _PATIENCE) -> Mapping[str, Signal]:
        """Return the signal that is a backup."""
        return {BACKUP: lambda: tools.take_backup(self._stack, patience * self._scale)}

    def restore(self) -> Mapping[str, Signal]:
        """Return the signal that is a restore."""
        return {RESTORE: self._rehearse}

    def asked(self) -> Mapping[str, Signal]:
        """Return all that are asked: all but the named checks, which :meth:`look` takes from the worker's reports."""
        return {**self.control(), **self.alone(), **self.backup(), **self.restore()}

    def ask(self, signals: Mapping[str, Signal]) -> None:
        """Ask these signals, all at once."""
        with ThreadPoolExecutor(max(len(signals), 1)) as pool:
            for name, said in zip(signals, pool.map(_ask, signals.values()), strict=True):
                self._note(name, said)

    def look(self) -> bool:
        """Note what the check worker reports; False where it has reported nothing new."""
        status = _read(self._stack)
        if status is None or status.finished < self._since or status.finished == self._seen:
            return False
        self._seen = status.finished
        self._whole = self._whole or status.started >= self._since
        for name, said in of_checks(status).items():
            self._note(name, said)
        return True

    def await_alarm(self, signal: str, reason: str, limit: float) -> Reading:
        """Wait until a signal raises an alarm that says ``reason`` (a regular expression).

        Raises DeadlineError: what it said, and who else raised an alarm.
        """
        asked = self.asked().get(signal)

        def raised() -> Reading | None:
            if asked is None:
                self.look()
            else:
                self.ask({signal: asked})
            found = self._readings.get(signal)
            alarm = found is not None and found.answer is Answer.ALARM
            return found if found and alarm and re.search(reason, found.said) else None

        try:
            return wait_until(raised, limit=limit, what="", pause=0.1 if asked else self._pause)
        except DeadlineError:
            raise IopError(
                f"{signal} did not report it within {limit:g} s (expected: {reason}); {self._describe(signal)}"
            ) from None

    def await_report(self, limit: float) -> None:
        """Give the check worker its time for a report that was begun after :meth:`begin`.

        One that was under way has asked some of its checks before, and they said that all was well.
        """

        def whole() -> bool:
            self.look()
            return self._whole

        with suppress(DeadlineError):  # then they are as the last report had them
            wait_until(whole, limit=limit, what="", pause=self._pause)

    def await_health(self, limit: float) -> None:
        """Give the check worker's health check its time, where a report of the worker calls for an alarm of it."""

        def caught_up() -> bool:
            self.ask({CHECK_WORKER: self.control()[CHECK_WORKER]})
            bad = [reading for reading in self._readings.values() if reading.said.startswith(_BAD)]
            return not bad or self._readings[CHECK_WORKER].answer is Answer.ALARM

        with suppress(DeadlineError):  # then it is silent, and the matrix says so
            wait_until(caught_up, limit=limit, what="", pause=0.2)

    def await_green(self, limit: float, *, recent: float = 0) -> None:
        """Wait until every named check is ok in a report that was begun after this call, or ``recent`` seconds before.

        Raises IopError.
        """
        since = datetime.now(timezone.utc) - timedelta(seconds=recent)
        status: checks.CheckStatus | None = None

        def green() -> bool:
            nonlocal status
            status = _read(self._stack)
            return status is not None and status.started >= since and status.status == "ok"

        try:
            wait_until(green, limit=limit, what="", pause=self._pause)
        except DeadlineError:
            said = status.describe() if status else "it reported nothing"
            raise IopError(f"the check worker was not green within {limit:g} s: {said}") from None

    def await_healthy(self, limit: float) -> None:
        """Give the check worker's health check its time to follow a report that was green.

        Raises IopError where it does not within ``limit`` seconds, and at once where the worker reports an alarm again.
        """

        def healthy() -> bool:
            status = _read(self._stack)
            if status is not None and status.status != "ok":
                raise IopError(f"the check worker was green, and then no more: {status.describe()}")
            self._readings.pop(CHECK_WORKER, None)
            self.ask({CHECK_WORKER: self.control(UNHURRIED)[CHECK_WORKER]})
            return self._readings[CHECK_WORKER].answer is Answer.SILENT

        try:
            wait_until(healthy, limit=limit, what="", pause=0.2)
        except DeadlineError:
            said = self._readings[CHECK_WORKER].said
            raise IopError(f"{CHECK_WORKER}, {limit:g} s after a green report: {said}") from None

    def require_silence(self, signals: Mapping[str, Signal], patience: float = 0) -> None:
        """Raise IopError if one of these signals is not silent; with ``patience``, not within so many seconds."""
        loud = dict(signals)

        def silent() -> bool:
            for name in loud:
                self._readings.pop(name, None)
            self.ask(loud)
            for name in [name for name in loud if self._readings[name].answer is Answer.SILENT]:
                del loud[name]
            return not loud

        try:
            wait_until(silent, limit=patience, what="", pause=0.2)
        except DeadlineError:
            raise IopError("; ".join(f"{name}: {self._readings[name].said}" for name in loud)) from None

    def _describe(self, signal: str) -> str:
        mine = self._readings.get(signal)
        said = f"it said: {mine.answer.value}: {mine.said}" if mine else "it said nothing"
        others = [
            f"{name}: {reading.said}" for name, reading in self._readings.items() if _loud(reading) and name != signal
        ]
        return said + (f"; alarms: {'; '.join(others)}" if others else "; no other alarm")

    def _note(self, name: str, said: Said) -> None:
        before = self._readings.get(name)
        if before is not None and before.answer is Answer.ALARM and not said.alarm:
            return
        first = before.after if before is not None and before.answer is said.answer else time.monotonic() - self._clock
        self._readings[name] = Reading(signal=name, answer=said.answer, said=said.words, after=first)


def _loud(reading: Reading) -> bool:
    return reading.answer is not Answer.SILENT


def _ask(signal: Callable[[], Said]) -> Said:
    try:
        return signal()
    except DeadlineError as error:
        return Said(Answer.HUNG, error.message)


def _read(stack: Stack) -> checks.CheckStatus | None:
    """Return the last report; None where it cannot be read, which is the check worker's health to say."""
    try:
        return checks.read_status(stack)
    except (OSError, ValueError, IopError):
        return None
