#!/usr/bin/env python3
"""worker_health.py NAME SECONDS: judges a worker by the state file that worker.sh writes; a container's health check.

Exit code 0: the worker lives, its last run ended well, and the next one has ended or may still do so: a run may take
SECONDS. Else 1. Says why in one line. Python's standard library only.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import datetime, timezone
from pathlib import Path

GOOD = {"backup": {0}, "check": {0, 1}}  # exit codes; check.sh's 1 is a warning, which its own report carries
HEARTBEAT_LIMIT = 60  # seconds; worker.sh beats every IOP_HEARTBEAT, 10 by default


def age(time: str) -> float:
    """Return how many seconds ago that was."""
    return (datetime.now(timezone.utc) - datetime.strptime(time, "%Y-%m-%dT%H:%M:%S.%f%z")).total_seconds()


def complaint(name: str, run_limit: int) -> str | None:
    """Return what is wrong, or None."""
    state = json.loads((Path(os.environ.get("IOP_STATE_PATH") or "/var/lib/iop-backup") / f"{name}.json").read_text())
    silence, last = age(state["heartbeat"]), state["last"]
    if silence > HEARTBEAT_LIMIT:
        return f"no heartbeat for {silence:.0f} s"
    if last is None:
        return "no run has ended yet"
    if last["exit_code"] not in GOOD.get(name, {0}):
        return f"the last run ended with exit code {last['exit_code']}: see the log"
    if age(last["finished"]) > state["frequency"] + run_limit:
        return f"the last run ended {age(last['finished']):.0f} s ago; one is due every {state['frequency']} s"
    return None


def main() -> int:
    """Return the exit code."""
    _, name, run_limit = sys.argv
    try:
        found = complaint(name, int(run_limit))
    except (OSError, ValueError, KeyError, TypeError) as error:
        found = f"the state cannot be read: {error}"
    sys.stdout.write(f"worker {name}: {found or 'ok'}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
