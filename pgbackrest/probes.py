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
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from errno import EINTR
from functools import wraps
from typing import Any, NoReturn, TypeVar

STANZA = os.environ.get("PGBACKREST_STANZA") or "iop"
LIMITS = {
    "IOP_PROBE_TIMEOUT": 15,  # seconds for one answer of pgBackRest or PostgreSQL
    "IOP_ARCHIVE_CHECK_TIMEOUT": 90,  # seconds; longer than pgBackRest's archive-timeout, whose own reason says more
    "IOP_READY_LIMIT": 32,  # finished WAL segments that may wait for the archive
    "IOP_READY_AGE": 90,  # seconds that the oldest of them may wait while none is archived
    "IOP_WAL_VERIFY_SECONDS": 1,  # seconds of each cycle to compare WAL segments with the checksums in their names
    "IOP_VERIFY_FREQUENCY": 86400,  # seconds from one pgbackrest verify to the next
    "IOP_VERIFY_LIMIT": 21600,  # seconds that it may take, or be overdue
    "IOP_SIZE_CHANGE": 10,  # how many times larger or smaller than the one before a backup may be
    "IOP_SPACE_WARNING": 10,  # percent of a file system, and of its inodes, that have to be free
    "IOP_SPACE_CRITICAL": 5,
    "IOP_SPACE_ENOUGH": 50,  # GiB: with so much free, percentages do not matter
    "IOP_SPACE_FORECAST": 21600,  # seconds ahead: a file system that will be full by then is reported
    "IOP_SLOT_LIMIT": 1024,  # MiB of WAL that a replication slot may hold back while nobody reads it
    "DATABASE_BACKUP_LIMIT": 3600,  # seconds that a backup may take
    "IOP_HEARTBEAT": 10,  # seconds between two signs of life of a worker
}
# Periods, which may be long. Those without a default are judged only where they are set.
PERIODS = {
    "IOP_FULL_BACKUP_AGE": 604800,  # seconds after which backup.sh takes a full backup again
    "DATABASE_BACKUP_FREQUENCY": None,  # seconds between two backups; set: a backup worker is expected
    "IOP_RPO": None,  # seconds for which a commit may be nowhere but on the server; else both archive timeouts together
    "IOP_RECOVERY_WINDOW": None,  # seconds back from now in which every moment has to be restorable
}


class Problem(Exception):  # noqa: N818 - listed more often than raised
    """One thing that is wrong or unknown; ``code`` is pgBackRest's, as ``error.yaml`` in its source lists them."""

    def __init__(self, status: str, seen: str, hint: str, code: int | None = None) -> None:
        super().__init__(seen)
        self.status, self.seen, self.hint, self.code = status, seen, hint, code


Answer = TypeVar("Answer")
Findings = Iterator["str | Problem"]

running: set[subprocess.Popen[bytes]] = set()
starting = threading.Lock()
starters: set[int] = set()  # the thread that holds it
received: list[int] = []  # signals


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a program with all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def spawn(argv: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, with pgBackRest quiet but for warnings.

    :func:`stop` knows of it from its first moment. Raises OSError if it cannot be run, InterruptedError once a signal
    has come: of the threads that wait for their turn then, each would delay the end.
    """
    logging = {"PGBACKREST_LOG_LEVEL_STDERR": "warn", "PGBACKREST_LOG_LEVEL_CONSOLE": "off"}
    with starting:
        if received:
            raise InterruptedError(EINTR, os.strerror(EINTR))
        try:
            starters.add(threading.get_ident())
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={"PGCONNECT_TIMEOUT": "5", **os.environ, **logging, "PGBACKREST_STANZA": STANZA},
                start_new_session=True,
            )
            running.add(process)
        finally:
            starters.clear()
    if received and threading.current_thread() is threading.main_thread():
        leave()
    return process


def kill_all() -> None:
    """Kill what runs. Nothing can be started any more: the lock is never given back."""
    starting.acquire(timeout=2)  # a thread that starts a program from a dead mount keeps it
    for process in tuple(running):
        kill(process)


def leave() -> NoReturn:
    """End as the first signal demands."""
    kill_all()
    raise SystemExit(128 + received[0])


def stop(number: int, _frame: object) -> None:
    """End on a signal, and leave no program behind; if one is just being started, then spawn() does it."""
    received.append(number)
    if received == [number] and threading.get_ident() not in starters:
        leave()


def limit(name: str) -> int:
    """Return the limit of that name, from the environment or its default."""
    value = os.environ.get(name) or str(LIMITS[name])
    if not re.fullmatch("[1-9][0-9]{0,5}", value):
        raise Problem("unknown", f"{name} is '{value}'", f"set {name} to a whole number from 1 to 999999")
    return int(value)


def period(name: str) -> int | None:
    """Return the period of that name in seconds, or None if it is not set and has no default."""
    value = os.environ.get(name) or PERIODS[name]
    if value is None:
        return None
    if not re.fullmatch("[1-9][0-9]{0,9}", str(value)):
        raise Problem("unknown", f"{name} is '{value}'", f"set {name} to a whole number of seconds, from 1")
    return int(value)


def once(question: Callable[[], Answer]) -> Callable[[], Answer]:
    """Let the first of several threads ask, and give all of them the answer, or the Problem."""
    lock = threading.Lock()
    answers: list[Answer | Problem] = []

    @wraps(question)
    def shared() -> Answer:
        with lock:
            if not answers:
                try:
                    answers.append(question())
                except Problem as problem:
                    answers.append(problem)
        answer = answers[0]
        if isinstance(answer, Problem):
            raise Problem(answer.status, answer.seen, answer.hint, answer.code)
        return answer

    return shared


def broken(*rules: tuple[object, str, str, str]) -> Iterator[Problem]:
    """Yield a problem for each rule that does not hold; a rule is (holds, status, what is seen, what to do)."""
    return (Problem(status, seen, hint) for holds, status, seen, hint in rules if not holds)


def some(names: Iterable[str]) -> str:
    """Name the first few of many."""
    found = list(names)
    return ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")


def ask(*argv: str, within: str = "IOP_PROBE_TIMEOUT") -> subprocess.CompletedProcess[str]:
    """Run a program; raise an unknown :class:`Problem` if it cannot be run or takes longer than the named limit."""
    answer = fetch_bytes(*argv, within=within)
    stdout, stderr = (text.decode(errors="replace") for text in (answer.stdout, answer.stderr))
    return subprocess.CompletedProcess(argv, answer.returncode, stdout, stderr)


def fetch_bytes(*argv: str, within: str = "IOP_PROBE_TIMEOUT") -> subprocess.CompletedProcess[bytes]:
    """Do the same for output that is no text.

    Nothing that may hang is done in this process itself. A program that does not answer is killed, and not waited for:
    one that reads from a dead mount cannot even be killed.
    """
    seconds = limit(within)
    try:
        process = spawn(argv)
    except OSError as error:
        raise Problem("unknown", f"cannot run {argv[0]}: {error.strerror}", "install it, or correct PATH") from error
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
