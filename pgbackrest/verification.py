"""``pgbackrest verify`` at its own pace: started by a check, run beside it, judged by every check.

``health.py verify`` is the run. Standard library only.
"""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from helps import help_of
from memory import STATE, Memory
from probes import STANZA, Findings, Problem, ask, kill, limit, running, said, some, spawn
from snapshot import ask_info, labels, look

FINE = {"ok", "valid", "in-progress"}
LOCK = STATE / f"verify-{STANZA}.lock"
EXPIRE = STATE / f"expire-{STANZA}.lock"
"""Held by backup.sh while backups expire, and shared by a run: it would miss what it has listed."""


def verify() -> Findings:
    """Judge the last run of ``pgbackrest verify``, and start one if it is due."""
    if not any(snapshot.backups for snapshot in look()):
        yield "nothing to verify yet"
        return
    lock = hold()
    memory = Memory("verify")
    problems, ended = memory.get("problems", []), memory.get("ended", 0.0)
    if lock is not None:
        lock.close()
        pause = memory.get("seconds", 0) if problems else limit("IOP_VERIFY_FREQUENCY")
        if not ended or not 0 <= time.time() - ended < pause:
            start()
            if problems:  # perhaps it has been put right meanwhile: a small repository tells at once
                memory = wait(ended)
                problems, ended = memory.get("problems", []), memory.get("ended", 0.0)
    most = limit("IOP_VERIFY_LIMIT")
    begun = time.time() - memory.get("started", time.time())
    if lock is None and begun > most:
        yield Problem("critical", f"verify has been running for {begun:.0f} s, more than {most}", "does it hang?")
    for status, seen, hint in problems:
        yield Problem(status, seen, hint)
    age = time.time() - ended
    if not ended:
        yield "the first run is in progress"
    elif age > limit("IOP_VERIFY_FREQUENCY") + most:
        yield Problem(
            "warning", f"the last run ended {age:.0f} s ago", "runs are killed, or take too long: see the log"
        )
    else:
        yield f"the last run ended {age:.0f} s ago, after {memory.get('seconds', 0):.0f} s"


def hold() -> IO[bytes] | None:
    """Take the lock that a run holds; None if one is in progress."""
    try:
        file = LOCK.open("ab")
    except OSError as error:
        seen = f"cannot write {LOCK}: {error.strerror}"
        raise Problem("unknown", seen, "set IOP_STATE_PATH to a writable directory") from error
    if not locked(file, fcntl.LOCK_EX):
        file.close()
        return None
    return file


def locked(file: IO[bytes], kind: int) -> bool:
    """Take that kind of lock until the file is closed; False: somebody else holds it."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def start() -> None:
    """Start a run in the background. It ends with the worker whose check started it."""
    script = str(Path(__file__).with_name("health.py"))
    argv = (sys.executable, "-B", script, "verify", f"--while={os.getppid()}")
    subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )


def wait(ended: float) -> Memory:
    """Give the run just started a few seconds."""
    deadline = time.monotonic() + min(5, limit("IOP_PROBE_TIMEOUT"))
    memory = Memory("verify")
    while memory.get("ended", 0.0) == ended and time.monotonic() < deadline:
        time.sleep(0.05)
        memory = Memory("verify")
    return memory


def run(starter: int) -> int:
    """Verify, and remember the result."""
    lock = hold()
    if lock is None:
        return 0
    os.nice(19)
    with suppress(Problem):  # where it is not installed
        ask("ionice", "--class=3", f"--pid={os.getpid()}")
    memory = Memory("verify")
    memory["started"] = started = time.time()
    memory.save()
    try:
        with EXPIRE.open("ab") as file:
            found = attempt(starter) if keep(file, starter) else None
    except Problem as problem:
        found = [problem]
    if found is not None:
        now = time.time()
        rows = [(problem.status, problem.seen, problem.hint) for problem in found]
        memory.update(ended=now, seconds=round(now - started, 1), problems=rows)
        memory.save()
    return 0


def keep(file: IO[bytes], starter: int) -> bool:
    """Wait until nothing expires, and let nothing expire until the file is closed; False: the starter has gone."""
    while not locked(file, fcntl.LOCK_SH):
        if gone(starter):
            return False
        time.sleep(0.1)
    return True


def gone(starter: int) -> bool:
    """Whether the worker whose check started this run has ended; 0: a human has started it."""
    return starter > 1 and not Path("/proc", str(starter)).exists()


def attempt(starter: int) -> list[Problem] | None:
    """Verify; up to three times if that finds trouble while backups come, or an operator lets some expire.

    None: it was stopped.
    """
    for _ in range(3):
        before = ask_info()
        found = every_set(before, starter)
        if not found or labels(ask_info()) == labels(before):
            return found
    return found


def every_set(stanza: dict[str, Any], starter: int) -> list[Problem] | None:
    """Verify the repositories; then the backup that a restore would take, and where there is trouble, each.

    Each set reads again all that it refers to. Releases from 2.47 on call a backup valid if a bundle of another one
    that it refers to is damaged, but not if they are asked for it by ``--set``.
    """
    several = len(stanza["repo"]) > 1
    sets = "--set " in help_of("verify").stdout
    problems: list[Problem] = []
    for repo in stanza["repo"]:
        options = [f"--repo={repo['key']}"] if several else []
        found = one(options, starter)
        mine = [entry["label"] for entry in stanza["backup"] if entry["database"]["repo-key"] == repo["key"]]
        for label in (mine if found else mine[-1:]) if sets else ():
            more = one([*options, f"--set={label}"], starter)
            if found is None or more is None:
                return None
            found += more
        if found is None:
            return None
        problems += found
    return list({problem.seen: problem for problem in problems}.values())


def one(options: list[str], starter: int) -> list[Problem] | None:
    """Run the program once; None: it was stopped."""
    argv = ["pgbackrest", "verify", "--output=text", "--verbose", "--process-max=1", *options]
    deadline = time.monotonic() + limit("IOP_VERIFY_LIMIT")
    process = spawn(argv)
    worked, since, stalled = 0, time.monotonic(), 4 * limit("IOP_PROBE_TIMEOUT")
    while True:
        try:
            stdout, stderr = process.communicate(timeout=0.5)
            break
        except subprocess.TimeoutExpired:
            before, worked = worked, cpu_time(process.pid)
            since = time.monotonic() if worked > before else since
            seen = f"verify hangs: no progress for {stalled} s" if time.monotonic() - since > stalled else ""
            if time.monotonic() > deadline:
                seen = f"verify did not end within {limit('IOP_VERIFY_LIMIT')} s"
            left = gone(starter)
            if left or seen:
                kill(process)
                hint = "does the repository hang? some releases hang where WAL is damaged (seen: 2.45): see wal-chain"
                return None if left else [Problem("critical", seen, hint)]
    running.discard(process)
    texts = (text.decode(errors="replace") for text in (stdout, stderr))
    return judge(subprocess.CompletedProcess(argv, process.returncode, *texts))


def cpu_time(session: int) -> int:
    """Return what the processes of a session have used, in clock ticks (proc(5), stat: session, utime and stime).

    Whoever waits for a slow disk uses little, but some; a process that waits for ever uses none.
    """
    total = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):  # it has just ended
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session:
                total += int(fields[11]) + int(fields[12])
    return total


def judge(answer: subprocess.CompletedProcess[str]) -> list[Problem]:
    """Read what it printed: exit codes say nothing. Anything but a fine status, or a warning, is trouble."""
    problems = list(said(answer))
    states = re.findall(r"^\s*(?:backup: (\S+), )?status: ([\w-]+)", answer.stdout, re.MULTILINE)
    hint = "pgbackrest verify --output=text --verbose; take a full backup now"
    bad = [label or "the repository" for label, status in states if status not in FINE]
    wal = re.findall(r"archiveId: (\S+), total WAL checked: (\d+), total valid WAL: (\d+)", answer.stdout)
    bad += [f"WAL of {name} ({int(total) - int(valid)} files)" for name, total, valid in wal if total != valid]
    bad += re.findall(r"^ *(backup set \S+ is not valid)", answer.stdout, re.MULTILINE)
    if bad:
        problems.append(Problem("critical", f"verify finds damage: {some(dict.fromkeys(bad))}", hint))
    if not states:
        said_words = " ".join(answer.stdout.split())[:200]
        problems.append(Problem("unknown", f"verify says nothing of the stanza: {said_words}", "run it by hand"))
    return problems
