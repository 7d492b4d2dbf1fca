#!/usr/bin/env python3
"""Judges the backup system by named checks. Writes no data; standard library of Python 3.9 or later only.

    health.py check     one line per check on stdout, and all of it as JSON in $IOP_STATE_PATH/check-status.json, where
                        "finished" is the heartbeat; exit code 0 ok, 1 warning, 2 critical, 3 unknown
    health.py backups   for backup.sh: label, type, stop time (seconds since 1970) and "ok" or "damaged" of each backup
                        of the present cluster, oldest first; exit code 3 if that cannot be told. With --note, notes
                        the options that pgBackRest finds there, for the checks
    health.py worker NAME
                        the container's health check of a worker (backup or check), by the state file of worker.sh: one
                        line that says why; exit code 0 if it lives, its last run ended well and none is overdue, else 1
    health.py verify    for the check of that name: runs pgbackrest verify in the background

checks.py names the checks, probes.py has the questions that they ask. Each check runs in a thread of its own, and each
question and each check has a time limit, so that no check holds up or hides another.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timezone

from memory import STATE, write
from probes import LIMITS, PERIODS, STANZA, Findings, Problem, ask, kill_all, limit, period, said, stanza_in, stop

# What only some of the commands need is imported by them: a container's health check runs every few seconds.

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
    return sum_up(check, problems, seen, started)


def sum_up(check: Callable[[], Findings], problems: list[Problem], seen: list[str], started: float) -> Result:
    """Make one result of all that a check found: it is as bad as the worst."""
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
    write(STATE / "check-status.json", json.dumps(report, indent=2) + "\n")


def carry_out_all() -> list[Result]:
    """Run all checks at the same time. One that does not end in time is left behind: perhaps nothing can end it."""
    from checks import CHECKS  # noqa: PLC0415
    from workers import cycle_limit  # noqa: PLC0415

    results: dict[Callable[[], Findings], Result] = {}
    threads = {
        check: threading.Thread(target=lambda check=check: results.update({check: carry_out(check)}), daemon=True)
        for check in CHECKS
    }
    for thread in threads.values():
        thread.start()
    most = cycle_limit() - limit("IOP_PROBE_TIMEOUT")
    begun = time.monotonic()
    for thread in threads.values():
        thread.join(max(0, begun + most - time.monotonic()))
    late = Problem("unknown", f"no result within {most} s", "a file system or a program hangs: see the other checks")
    return [results.get(check) or sum_up(check, [late], [], begun) for check in CHECKS]


def check() -> int:
    """Run all checks, print and save their results."""
    started = now()
    results = carry_out_all()
    for result in results:
        sys.stdout.write(f"{result.line()}\n")
    status = max((result.status for result in results), key=SEVERITY)
    try:
        save(results, status, started)
    except OSError as error:
        hint = "set IOP_STATE_PATH to a writable directory"
        raise Problem("unknown", f"cannot write the status file: {error}", hint) from error
    return EXIT_CODES[status]


def backups(*, note: bool) -> int:
    """List the backups that a differential one can build on: of this cluster, in the first repository."""
    from snapshot import judge_info, judge_shape  # noqa: PLC0415

    if note:
        from settings import note_options  # noqa: PLC0415

        note_options()
    answer = ask("pgbackrest", "info", "--output=json")
    stanza = stanza_in(answer.stdout, STANZA) if answer.returncode == 0 else {"repo": [], "db": [], "backup": []}
    repo = stanza["repo"][:1]
    for finding in (*said(answer), *judge_info(repo)):
        if isinstance(finding, Problem) and finding.status == "critical":
            raise finding
    judge_shape(stanza)
    clusters = [{"id": db["id"], "repo-key": db["repo-key"]} for db in stanza["db"] if db["repo-key"] == repo[0]["key"]]
    for backup in sorted(stanza["backup"], key=lambda backup: int(backup["timestamp"]["stop"])):
        if backup["database"] == clusters[-1]:
            state = "damaged" if backup.get("error") else "ok"
            sys.stdout.write(f"{backup['label']} {backup['type']} {backup['timestamp']['stop']} {state}\n")
    return 0


def worker(name: str) -> int:
    """Judge a worker."""
    from workers import judge  # noqa: PLC0415

    found = judge(name)
    sys.stdout.write(f"worker {name}: {found or 'ok'}\n")
    return 1 if found else 0


def main() -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check")
    commands.add_parser("backups").add_argument("--note", action="store_true")
    commands.add_parser("worker").add_argument("name", choices=("backup", "check"))
    commands.add_parser("verify").add_argument("--while", type=int, default=0, dest="starter")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    try:
        for name in LIMITS:
            limit(name)
        for name in PERIODS:
            period(name)
        if arguments.command == "verify":
            from verification import run  # noqa: PLC0415

            return run(arguments.starter)
        if arguments.command == "worker":
            return worker(arguments.name)
        return check() if arguments.command == "check" else backups(note=arguments.note)
    except Problem as problem:
        seen, hint = redact(problem.seen), redact(problem.hint)
        sys.stderr.write(f"ERROR: health.py: {seen}\nHINT: {hint}\n")
        if arguments.command == "check":  # or whoever reads the file alone would go on trusting the last result
            with suppress(OSError):
                save([Result("settings", "unknown", seen, hint, None, 0.0)], "unknown", now())
        return EXIT_CODES["unknown"]


if __name__ == "__main__":
    code = main()
    kill_all()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # without waiting for threads that hang
