#!/usr/bin/env python3
"""Judges the backup system by named checks. Writes no data; standard library of Python 3.9 or later only.

    health.py check     one line per check on stdout, and all of it as JSON in $IOP_STATE_PATH/check-status.json, where
                        "finished" is the heartbeat; exit code 0 ok, 1 warning, 2 critical, 3 unknown
    health.py backups   for backup.sh: label, type, stop time (seconds since 1970) and "ok" or "damaged" of each backup
                        of the present cluster, oldest first; exit code 3 if that cannot be told
    health.py worker NAME
                        the container's health check of a worker (backup or check), by the state file of worker.sh: one
                        line that says why; exit code 0 if it lives, its last run ended well and none is overdue, else 1

checks.py holds the checks, probes.py the questions that they ask. Each check runs in a thread of its own, and each
question has a time limit, so that no check holds up or hides another.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from checks import CHECKS, Findings, judge_info
from probes import LIMITS, STANZA, Problem, ask, limit, said, stanza_in, stop

EXIT_CODES = {"ok": 0, "warning": 1, "unknown": 3, "critical": 2}  # the worst last: not to know is worse than a warning
SEVERITY = list(EXIT_CODES).index


@dataclass(frozen=True)
class Result:
    """A check's verdict, as the status file has it; ``code`` is pgBackRest's error code."""

    name: str
    status: str
    seen: str
    hint: str
    code: int | None
    seconds: float

    def line(self) -> str:
        """Return the result as one line for people and for grep."""
        code = f"[{self.code:03}] " if self.code else ""
        hint = f" HINT: {self.hint}" if self.hint else ""
        return f"{self.status.upper():8} {self.name:14} {code}{self.seen}{hint}"


def carry_out(check: Callable[[], Findings]) -> Result:
    """Run a check, named after its function; whatever goes wrong inside it is its own ``unknown``."""
    started = time.monotonic()
    seen: list[str] = []
    problems: list[Problem] = []
    try:
        for finding in check():
            if isinstance(finding, Problem):
                problems.append(finding)
            else:
                seen.append(finding)
    except Problem as problem:
        problems.append(problem)
    except Exception as error:  # an answer of a shape that nobody foresaw
        problems.append(Problem("unknown", f"{type(error).__name__}: {error}", "report this as a defect of the check"))
    problems.sort(key=lambda problem: SEVERITY(problem.status), reverse=True)
    return Result(
        name=getattr(check, "__name__", "?").replace("_", "-"),
        status=problems[0].status if problems else "ok",
        seen=redact("; ".join([problem.seen for problem in problems] or seen)),
        hint=redact("; ".join(dict.fromkeys(problem.hint for problem in problems if problem.hint))),
        code=next((problem.code for problem in problems if problem.code), None),
        seconds=round(time.monotonic() - started, 3),
    )


def redact(text: str) -> str:
    """Take secrets out: the values of variables whose name says so, and what follows such an option."""
    for name, value in os.environ.items():
        if re.search("PASS|SECRET|TOKEN|_KEY", name) and len(value) > 3:
            text = text.replace(value, "***")
    return re.sub(r"(?i)((?:repo\d*-|pg|aws_)[\w-]*(?:pass|key|secret|token)[\w-]*[\s=]+)\S+", r"\1***", text)


def now() -> str:
    """Return the time, UTC with milliseconds."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def save(results: Iterable[Result], status: str, started: str) -> None:
    """Replace the status file as a whole: a reader never sees half of it."""
    checks = [asdict(result) for result in results]
    report = {"version": 1, "stanza": STANZA, "started": started, "finished": now(), "status": status, "checks": checks}
    directory = Path(os.environ.get("IOP_STATE_PATH") or "/var/lib/iop-backup")
    directory.mkdir(parents=True, exist_ok=True)
    temporary = directory / f".check-status.{os.getpid()}"
    with temporary.open("w") as file:
        file.write(json.dumps(report, indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(directory / "check-status.json")


def check() -> int:
    """Run all checks, print and save their results."""
    started = now()
    with ThreadPoolExecutor(len(CHECKS)) as pool:
        results = list(pool.map(carry_out, CHECKS))
    for result in results:
        sys.stdout.write(f"{result.line()}\n")
    status = max((result.status for result in results), key=SEVERITY)
    try:
        save(results, status, started)
    except OSError as error:
        hint = "set IOP_STATE_PATH to a writable directory"
        raise Problem("unknown", f"cannot write the status file: {error}", hint) from error
    return EXIT_CODES[status]


def backups() -> int:
    """List the backups that a differential one can build on: of this cluster, in the first repository."""
    answer = ask("pgbackrest", "info", "--output=json")
    stanza = stanza_in(answer.stdout, STANZA) if answer.returncode == 0 else {"repo": [], "backup": []}
    repo = stanza["repo"][:1]
    for finding in (*said(answer), *judge_info({"repo": repo, "backup": []})):
        if isinstance(finding, Problem) and finding.status == "critical":
            raise finding
    clusters = [{"id": db["id"], "repo-key": db["repo-key"]} for db in stanza["db"] if db["repo-key"] == repo[0]["key"]]
    for backup in sorted(stanza["backup"], key=lambda backup: int(backup["timestamp"]["stop"])):
        if backup["database"] == clusters[-1]:
            state = "damaged" if backup.get("error") else "ok"
            sys.stdout.write(f"{backup['label']} {backup['type']} {backup['timestamp']['stop']} {state}\n")
    return 0


def age(time: str) -> float:
    """Return how many seconds ago that was."""
    return (datetime.now(timezone.utc) - datetime.strptime(time, "%Y-%m-%dT%H:%M:%S.%f%z")).total_seconds()


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


def worker(name: str) -> int:
    """Judge a worker."""
    if name == "backup":
        # 3: another backup was running, an operator's. If that one failed, the operator has seen it.
        good, run_limit = {0, 3}, limit("DATABASE_BACKUP_LIMIT")
    else:
        # A warning (1) is in the check's own report. Its longest row of questions, each at its time limit:
        good, run_limit = {0, 1}, limit("IOP_ARCHIVE_CHECK_TIMEOUT") + 4 * limit("IOP_PROBE_TIMEOUT")
    path = Path(os.environ.get("IOP_STATE_PATH") or "/var/lib/iop-backup") / f"{name}.json"
    try:
        state = json.loads(path.read_text())
        found = complaint(state, good=good, run_limit=run_limit)
    except (OSError, ValueError, KeyError, TypeError) as error:
        found = f"{path} does not say how it is: {error}"
    sys.stdout.write(f"worker {name}: {found or 'ok'}\n")
    return 1 if found else 0


def main() -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check")
    commands.add_parser("backups")
    commands.add_parser("worker").add_argument("name", choices=("backup", "check"))
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    try:
        for name in LIMITS:
            limit(name)
        if arguments.command == "worker":
            return worker(arguments.name)
        return check() if arguments.command == "check" else backups()
    except Problem as problem:
        seen, hint = redact(problem.seen), redact(problem.hint)
        sys.stderr.write(f"ERROR: health.py: {seen}\nHINT: {hint}\n")
        if arguments.command == "check":  # or whoever reads the file alone would go on trusting the last result
            with suppress(OSError):
                save([Result("settings", "unknown", seen, hint, None, 0.0)], "unknown", now())
        return EXIT_CODES["unknown"]


if __name__ == "__main__":
    sys.exit(main())
