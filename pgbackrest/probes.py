"""Questions to pgBackRest and PostgreSQL for health.py: programs with a time limit, and how to read their answers.

Standard library of Python 3.9 or later only.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

STANZA = os.environ.get("PGBACKREST_STANZA") or "iop"
LIMITS = {
    "IOP_PROBE_TIMEOUT": 15,  # seconds for one answer of pgBackRest or PostgreSQL
    "IOP_ARCHIVE_CHECK_TIMEOUT": 90,  # seconds; longer than pgBackRest's archive-timeout, whose own reason says more
    "IOP_READY_LIMIT": 32,  # finished WAL segments that may wait for the archive
    "DATABASE_BACKUP_LIMIT": 3600,  # seconds that a backup may take
    "IOP_HEARTBEAT": 10,  # seconds between two signs of life of a worker
}


class Problem(Exception):  # noqa: N818 - listed more often than raised
    """One thing that is wrong or unknown; ``code`` is pgBackRest's, as ``error.yaml`` in its source lists them."""

    def __init__(self, status: str, seen: str, hint: str, code: int | None = None) -> None:
        super().__init__(seen)
        self.status, self.seen, self.hint, self.code = status, seen, hint, code


running: set[subprocess.Popen[str]] = set()
stopping = threading.Event()


def kill(process: subprocess.Popen[str]) -> None:
    """Kill a program with all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def stop(number: int, _frame: object) -> None:
    """End on a signal, and leave no program behind."""
    stopping.set()
    for process in tuple(running):
        kill(process)
    raise SystemExit(128 + number)


def limit(name: str) -> int:
    """Return the limit of that name, from the environment or its default."""
    value = os.environ.get(name) or str(LIMITS[name])
    if not re.fullmatch("[1-9][0-9]{0,5}", value):
        raise Problem("unknown", f"{name} is '{value}'", f"set {name} to a whole number from 1 to 999999")
    return int(value)


def ask(*argv: str, within: str = "IOP_PROBE_TIMEOUT") -> subprocess.CompletedProcess[str]:
    """Run a program; raise an unknown :class:`Problem` if it cannot be run or takes longer than the named limit."""
    seconds = limit(within)
    logging = {"PGBACKREST_LOG_LEVEL_STDERR": "warn", "PGBACKREST_LOG_LEVEL_CONSOLE": "off"}
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={"PGCONNECT_TIMEOUT": "5", **os.environ, **logging, "PGBACKREST_STANZA": STANZA},
            start_new_session=True,
        )
    except OSError as error:
        raise Problem("unknown", f"cannot run {argv[0]}: {error.strerror}", "install it, or correct PATH") from error
    running.add(process)
    if stopping.is_set():
        kill(process)
    try:
        stdout, stderr = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired as error:
        kill(process)
        seen = f"no answer from {' '.join(argv[:2])} within {seconds} s"
        raise Problem("unknown", seen, "a server or a file system hangs: run it by hand") from error
    finally:
        running.discard(process)
    return subprocess.CompletedProcess(argv, process.returncode, stdout, stderr)


def query(sql: str, otherwise: str = "unknown") -> Any:
    """Return the one JSON value that the query selects; raise a :class:`Problem` of that status if there is none."""
    answer = ask("psql", "--no-psqlrc", "--no-password", "--tuples-only", "--no-align", "--command", sql)
    if answer.returncode:
        seen = " ".join(answer.stderr.split()) or f"exit code {answer.returncode}"
        raise Problem(
            otherwise, f"psql: {seen}", "is the server up? are PGHOST, PGPORT, PGUSER and its rights correct?"
        )
    return json.loads(answer.stdout)


def said(answer: subprocess.CompletedProcess[str], *, configuration: bool = False) -> Iterator[Problem]:
    """Yield pgBackRest's errors and warnings. Those on its configuration come with every command: for one check only.

    Both streams are read: what pgBackRest says while it reads its configuration goes to stdout from 2.53 on.
    """
    command = " ".join(answer.args[:2])
    message = r"^(?:[\d-]+ [\d:.]+ )?(?:P\d+ +)?(ERROR|ASSERT|WARN): (?:\[(\d+)\]: )?(.*(?:\n[ \t]+.*)*)"
    failure = answer.returncode
    for level, code, text in re.findall(message, f"{answer.stderr}\n{answer.stdout}", re.MULTILINE):
        seen, *hints = (" ".join(part.split()) for part in text.split("HINT:"))
        hint = " ".join(hints) or "run it by hand, with --log-level-console=detail"
        if level != "WARN":
            failure = 0
            yield Problem("critical", f"{command}: {seen}", hint, int(code) if code else None)
        elif not re.match("(environment|configuration file) contains", seen):
            yield Problem("warning", f"{command}: {seen}", hint)
        elif configuration:
            yield Problem("warning", f"{command}: {seen}", "correct pgbackrest.conf or the environment")
    if failure:
        yield Problem("critical", f"{command}: exit code {failure} without a reason", "run it by hand")


def stanza_in(info: str, name: str) -> dict[str, Any]:
    """Find a stanza in what ``pgbackrest info --output=json`` printed; messages may stand before the JSON."""
    document = re.search(r"^\[.*\]", info, re.MULTILINE | re.DOTALL)
    with suppress(ValueError, TypeError, KeyError):
        for stanza in json.loads(document.group()) if document else ():
            if stanza["name"] == name and stanza["repo"]:
                return dict(stanza)
    raise Problem("unknown", f"pgbackrest info says nothing of the stanza {name}", "is PGBACKREST_STANZA right?")


def options_in(text: str) -> dict[str, str]:
    """Return the options that are set, as ``pgbackrest help COMMAND`` knows them from files and environment.

    Repositories and clusters are not numbered there (``repo-path``); values that differ between them are ``<multi>``.
    """
    entries = re.findall(r"^  --([\w-]+) +(.*(?:\n {8,}.*)*)", text, re.MULTILINE)
    found = (
        (name, re.search(r"\[current=(.*?)(?:, default=.*)?\]$", " ".join(entry.split()))) for name, entry in entries
    )
    return {name: value[1] for name, value in found if value}
