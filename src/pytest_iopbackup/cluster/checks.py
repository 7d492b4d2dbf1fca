"""The stack's own checks, seen from outside: the status file that ``check.sh`` writes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pytest_iopbackup.errors import DeadlineError, IopError
from pytest_iopbackup.limits import Limits, wait_until
from pytest_iopbackup.record import CheckFacts
from pytest_iopbackup.stack.base import Service, Stack

STATUS_FILE = "check-status.json"


@dataclass(frozen=True, slots=True)
class CheckStatus:
    """One run of ``check.sh``."""

    started: datetime
    finished: datetime
    status: str
    checks: tuple[CheckFacts, ...]

    def describe(self) -> str:
        """Name every check that was not ok."""
        alarms = [f"{check.name}: {check.status}: {check.seen}" for check in self.checks if check.status != "ok"]
        return "; ".join(alarms) or "all ok"


def read_status(stack: Stack) -> CheckStatus | None:
    """Return what the last run of ``check.sh`` found; None where it never ran."""
    try:
        content: dict[str, Any] = json.loads(stack.host(Service.CHECK).read(stack.places.state / STATUS_FILE))
    except FileNotFoundError:
        return None
    return CheckStatus(
        started=_moment(content["started"]),
        finished=_moment(content["finished"]),
        status=content["status"],
        checks=tuple(
            CheckFacts(
                name=check["name"],
                status=check["status"],
                seen=check["seen"],
                hint=check["hint"] or "",
                code=check["code"],
            )
            for check in content["checks"]
        ),
    )


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def await_green(stack: Stack, since: datetime, limits: Limits) -> CheckStatus:
    """Wait for the check worker's first run that ended after ``since``, and return it.

    Raises IopError when a check is not ok, DeadlineError when the worker reports nothing in time.
    """

    def reported() -> CheckStatus | None:
        if not stack.running(Service.CHECK):
            raise DeadlineError("the check worker ended by itself", hint="see worker-check.log of the stack")
        status = read_status(stack)
        return status if status is not None and status.finished >= since else None

    status = wait_until(reported, limit=limits.check, what="the check worker's report")
    if status.status != "ok":
        raise IopError(f"the stack's own checks are not green: {status.describe()}")
    return status


def run_checks(stack: Stack, limits: Limits) -> CheckStatus:
    """Run ``check.sh`` once, now, beside its worker."""
    host = stack.host(Service.CHECK)
    result = host.run(["bash", str(stack.places.configuration / "check.sh")], timeout=limits.check, check=False)
    status = read_status(stack)
    if status is None:
        raise IopError(f"check.sh left no status file: {result.describe()}")
    return status
