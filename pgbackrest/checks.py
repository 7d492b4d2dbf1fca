"""The checks of health.py: what is asked, and how the answers are judged. Python 3.9 or later, standard library only.

A check is a generator of what it saw (text) and of the problems it found; a problem that it raises ends it. To add a
check, write one and name it in ``CHECKS``. Here are those of the repository and of the server; the others have modules
of their own.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from archiving import archiver, wal_archiving
from backups import CLOCKS, backups
from chain import wal_chain
from helps import is_local, options
from memory import STATE, Memory
from probes import STANZA, Findings, ask, broken, query, said, some, stanza_in
from settings import configuration
from snapshot import Snapshot, first_info, judge_info, look
from space import space
from verification import verify
from workers import workers

AT_ONCE = 100
"""Paths in one command: all of a repository would be too many."""


def repository() -> Findings:
    """Ask whether the repository can be read and written, holds the stanza, and is the one that was there before."""
    answer = first_info()
    yield from said(answer)
    if answer.returncode:
        return
    stanza = stanza_in(answer.stdout, STANZA)
    bad = list(judge_info(stanza["repo"]))
    if bad:
        yield from bad
        return
    if is_local():
        path = options().get("repo-path", "/var/lib/pgbackrest")
        yield from judge_access(*(f"{path}/{part}/{STANZA}" for part in ("archive", "backup")), readable=True)
    found = options()
    spool = found.get("spool-path", "/var/spool/pgbackrest") if found.get("archive-async") == "true" else ""
    yield from judge_access(*filter(None, [spool and f"{spool}/archive/{STANZA}", found.get("lock-path")]))
    for snapshot in look():
        yield from judge_identity(snapshot, Memory(f"repository-{snapshot.key}"))
    yield f"stanza {STANZA}, {len(stanza['backup'])} backups"


def judge_access(*directories: str, readable: bool = False) -> Findings:
    """Judge rights below the directories: each has to be writable, and with ``readable`` all in them to be readable."""
    tests = ["-type", "d", "!", "-writable", *(["-o", "!", "-type", "l", "!", "-readable"] if readable else [])]
    seen = refused(directories, "(", *tests, ")")
    words = f"no right to write or to read {some(seen)}"
    yield from broken((not seen, "critical", words, "see owner and mode; did root run pgbackrest? is the mount right?"))


def refused(places: Iterable[str], *tests: str) -> list[str]:
    """Return what find's tests find at and below these places, and what cannot be looked into.

    Of a place that is not there: whether it can be made. What expires meanwhile, or is renamed, is no matter: find may
    take it for one without the right, so it is asked of that twice more.
    """
    answer = ask("env", "LC_ALL=C", "find", *places, *tests, "-print")
    found = answer.stdout.split("\n")[:-1]
    for _ in range(2):
        if found:
            again = ask("env", "LC_ALL=C", "find", *found[:AT_ONCE], "-maxdepth", "0", *tests, "-print")
            found = again.stdout.split("\n")[:-1] + found[AT_ONCE:]
    found += re.findall(r"^find: '(.*)': Permission denied$", answer.stderr, re.MULTILINE)
    lost = [place for place in places if f"find: '{place}': No such file or directory\n" in answer.stderr]
    above = sorted({str(Path(place).parent) for place in lost})
    return list(dict.fromkeys([*found, *(refused(above, "-maxdepth", "0", "!", "-writable") if above else [])]))


def judge_identity(snapshot: Snapshot, memory: Memory) -> Findings:
    """Judge whether it still has, or had and let expire, every backup that was ever seen in it.

    That no WAL was lost is for the checks named archiver and wal-chain to say. pgBackRest keeps the manifest of every
    backup in ``backup.history``, also when that expires; for how many days, its option repo-retention-history says.
    """
    if memory.new:
        yield "begins to remember which backups there are"
    known: dict[str, int] = memory.setdefault("labels", {})
    listed = {entry["label"] for entry in snapshot.backups}
    history = {
        match[1] for path in snapshot.files for match in [re.search(r"^backup\.history/.*/([^./]+)\.", path)] if match
    }
    missing = sorted(set(known) - listed - history)
    days = options().get("repo-retention-history", "")
    if days.isdigit():
        missing = [label for label in missing if known[label] > time.time() - 86400 * int(days)]
    hint = f"is it another volume? put the right one back; if this is meant: rm {STATE}/remembered-{STANZA}-*"
    seen = f"{snapshot.name}this is not the repository that was here: it has never had backup {some(missing)}"
    yield from broken((not missing, "critical", seen, hint))
    if not missing:  # nothing is learnt from another repository
        known.update({entry["label"]: entry["timestamp"]["stop"] for entry in snapshot.backups})
        memory.save()


def postgresql() -> Findings:
    """Ask whether PostgreSQL answers, takes writes, and has the same time."""
    asked = time.time()
    server = query(
        "SELECT json_build_object('version', current_setting('server_version'), 'recovery', pg_is_in_recovery(),"
        " 'started', date_trunc('second', pg_postmaster_start_time()), 'now', extract(epoch FROM clock_timestamp()))",
        otherwise="critical",
    )
    yield from judge_clock(float(server["now"]), asked, time.time())
    yield from broken((not server["recovery"], "warning", "in recovery: takes no writes", "see PostgreSQL's log"))
    yield f"version {server['version']}, up since {server['started']}"


def judge_clock(server: float, asked: float, answered: float) -> Findings:
    """Judge the server's clock, read between two looks at ours: backups and commits have its times, ages have ours."""
    ahead, behind = server - answered, asked - server
    seen = f"the server's clock is {max(ahead, behind):.0f} s {'ahead' if ahead > behind else 'behind'}"
    hint = "set the one right that is wrong: backups get its times, a restore to a time aims by them"
    yield from broken((max(ahead, behind) <= CLOCKS, "critical", seen, hint))


CHECKS: tuple[Callable[[], Findings], ...] = (
    repository,
    postgresql,
    configuration,
    wal_archiving,
    archiver,
    wal_chain,
    backups,
    verify,
    space,
    workers,
)
