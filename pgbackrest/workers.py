"""What the workers' own records say, for their containers' health checks and for the checks. Standard library only."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Mapping
from datetime import datetime, timezone
from typing import Any

from memory import STATE, Memory
from probes import Findings, Problem, limit, period

GOOD = {0, 3}
"""Exit codes of a backup worker's run. 3: another backup was running, an operator's; its end, the operator has seen."""


def cycle_limit() -> int:
    """Return the seconds that a check cycle may take; each check in it, one ``IOP_PROBE_TIMEOUT`` less."""
    return limit("IOP_ARCHIVE_CHECK_TIMEOUT") + 4 * limit("IOP_PROBE_TIMEOUT")


def recorded(name: str) -> dict[str, Any]:
    """Read a worker's record; raise OSError or ValueError if there is none."""
    return dict(json.loads((STATE / f"{name}.json").read_text()))


def age(moment: str) -> float:
    """Return how many seconds ago that was."""
    return (datetime.now(timezone.utc) - datetime.strptime(moment, "%Y-%m-%dT%H:%M:%S.%f%z")).total_seconds()


def complaint(state: Mapping[str, Any], *, good: Collection[int], run_limit: int) -> str | None:
    """Return what is wrong with a worker, or None. Runs may take ``run_limit`` seconds and end with ``good`` codes."""
    silence, since, last = age(state["heartbeat"]), age(state["since"]), state["last"]
    if silence > 6 * limit("IOP_HEARTBEAT"):
        return f"no heartbeat for {silence:.0f} s: the worker is gone or hangs"
    if state["state"] == "running" and since > run_limit:
        return f"the run in progress has taken {since:.0f} s, more than {run_limit} s"
    if last is None:
        return None if state["state"] == "running" else "no run has started yet"
    if last["exit_code"] not in good:
        return f"the last run ended with exit code {last['exit_code']} at {last['finished']}: see the log"
    if age(last["finished"]) > state["frequency"] + run_limit:
        return f"the last run ended {age(last['finished']):.0f} s ago: one is due every {state['frequency']} s"
    return None


def judge(name: str) -> str | None:
    """Return what is wrong with the worker of that name, or None."""
    if name == "backup":
        good, run_limit = GOOD, limit("DATABASE_BACKUP_LIMIT")
    else:
        # A warning (1) is in the check's own report.
        good, run_limit = {0, 1}, cycle_limit()
    try:
        state = recorded(name)
        return complaint(state, good=good, run_limit=run_limit) or unreported(name, state["last"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{STATE / name}.json does not say how it is: {error}"


def unreported(name: str, last: Mapping[str, Any] | None) -> str | None:
    """Return that a run of the checks has ended well and left no report, as a script does that checks nothing.

    A run in progress may have replaced the report of the last one already.
    """
    if name != "check" or not last:
        return None
    try:
        finished = recorded("check-status")["finished"]
        stale = age(finished) > age(last["started"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"the report cannot be read: {error}"
    return f"the last run, of {last['started']}, has left no report; the newest is of {finished}" if stale else None


def expected_frequency() -> int | None:
    """Return how often a backup is due, in seconds, by the worker's record or by the setting; None if neither is."""
    try:
        return int(recorded("backup")["frequency"])
    except (OSError, ValueError, KeyError, TypeError):
        return period("DATABASE_BACKUP_FREQUENCY")


def first_backup_is_due() -> bool:
    """Whether the worker has had its time to take a first backup: on its start it begins at once."""
    try:
        state = recorded("backup")
        if state["last"] is None:
            return age(state["since"]) > (limit("DATABASE_BACKUP_LIMIT") if state["state"] == "running" else 60)
    except (OSError, ValueError, KeyError, TypeError):
        return absent_for() > 60 or period("DATABASE_BACKUP_FREQUENCY") is None
    return True


def absent_for() -> float:
    """Return for how many seconds the checks have missed the record of a backup worker that is expected."""
    memory = Memory("workers")
    if (STATE / "backup.json").exists() or period("DATABASE_BACKUP_FREQUENCY") is None:
        memory.clear()
    else:
        memory.setdefault("absent", time.time())
    memory.save()
    return time.time() - float(memory.get("absent", time.time()))


def workers() -> Findings:
    """Ask whether the backup worker lives, and whether its runs succeed, in time."""
    missing = absent_for()
    if not (STATE / "backup.json").exists():
        if period("DATABASE_BACKUP_FREQUENCY") is None:
            yield "no backup worker has run here, and none is expected (DATABASE_BACKUP_FREQUENCY is not set)"
        elif missing > 6 * limit("IOP_HEARTBEAT"):
            seen = f"no backup worker has run here, for {missing:.0f} s"
            yield Problem("critical", seen, "start it: ./control.sh up; or worker.sh backup backup.sh")
        else:
            yield "the backup worker is about to start"
        return
    state = recorded("backup")
    if state["last"] is None and state["state"] == "waiting" and age(state["since"]) < 6 * limit("IOP_HEARTBEAT"):
        yield "the backup worker is about to begin"
        return
    found = judge("backup")
    if found:
        yield Problem("critical", f"backup worker: {found}", "see its log: ./control.sh logs pgbackrest_backup")
    yield f"backup worker: {state['state']}, {state['runs']} runs, one every {state['frequency']} s"
