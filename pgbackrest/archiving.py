"""The checks of archiving: whether WAL reaches the repository, and what PostgreSQL calls archived is really there.

Standard library only.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from helps import options
from probes import Findings, Problem, ask, broken, limit, once, period, query, said, some
from repository import format_lsn
from snapshot import Snapshot, files, look, take
from wal import SEGMENT, parse_record

ARCHIVER = """
SELECT json_build_object(
    'archived', last_archived_wal, 'failed', last_failed_wal, 'failures', failed_count,
    'age', extract(epoch FROM clock_timestamp() - last_archived_time),
    'failing', coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'), false),
    'up', extract(epoch FROM clock_timestamp() - pg_postmaster_start_time()),
    'alive', pg_is_in_recovery() OR EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'archiver'),
    'segment', CASE WHEN NOT pg_is_in_recovery() THEN pg_walfile_name(pg_current_wal_insert_lsn()) END,
    'size', (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_segment_size'),
    'wal', (SELECT coalesce(json_agg(name ORDER BY name), '[]') FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'),
    'timeout', (SELECT setting::int FROM pg_settings WHERE name = 'archive_timeout'),
    'data', current_setting('data_directory', true),
    'ready', (SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'),
    'waiting', (SELECT extract(epoch FROM clock_timestamp() - min(modification)) FROM pg_ls_archive_statusdir()
        WHERE name LIKE '%.ready'),
    'done', (SELECT coalesce(json_agg(left(name, 24)), '[]') FROM pg_ls_archive_statusdir()
        WHERE name ~ '^[0-9A-F]{24}\\.done$'))
FROM pg_stat_archiver"""


@once
def before() -> Mapping[str, Any]:
    """Return what the server says before ``pgbackrest check`` makes it archive the segment in use."""
    return dict(query(ARCHIVER))


@once
def exposed() -> float | None:
    """Return the age in seconds of the oldest commit that no repository has, likewise; None if there is none."""
    return max((age for age in (unarchived_for(snapshot, before()) for snapshot in look()) if age), default=None)


@once
def pushed() -> tuple[subprocess.CompletedProcess[str], float]:
    """Let pgBackRest make the server archive a segment, and wait for it; return what it said, and when it began."""
    with suppress(Problem):  # first, as the check changes it; the check named archiver says what is wrong
        exposed()
    started = time.monotonic()
    return ask("pgbackrest", "check", within="IOP_ARCHIVE_CHECK_TIMEOUT"), started


@once
def afterwards() -> Mapping[str, Any]:
    """Return what the server says when ``pgbackrest check`` has ended; not ``acknowledged``: no success since.

    A segment is in the repository a moment before PostgreSQL learns that its command has succeeded. That is waited for
    only where archiving fails by the server's word: a command that fails after its work does so in the next cycle.
    """
    try:
        answer, started = pushed()
    except Problem:  # the check named wal-archiving says so
        return {**query(ARCHIVER), "acknowledged": True}
    deadline = time.monotonic() + (0 if answer.returncode else 5)
    while True:
        found = dict(query(ARCHIVER))
        since = time.monotonic() - started
        acknowledged = not found["failing"] or (found["age"] is not None and found["age"] < since)
        if acknowledged or time.monotonic() >= deadline:
            return {**found, "acknowledged": acknowledged or answer.returncode != 0}
        time.sleep(0.1)


def wal_archiving() -> Findings:
    """Ask whether WAL reaches the repository: ``pgbackrest check`` ends the present segment and waits for it there."""
    yield from said(pushed()[0])
    found = afterwards()
    silent = f"WAL is in the repository, but PostgreSQL counts none archived after {found['archived']}"
    yield from broken((found["acknowledged"], "critical", silent, "see what archive_command does after pgbackrest"))
    yield f"last archived: {found['archived']}"


def archiver() -> Findings:
    """Ask whether the archiver works, and whether the repository really has what it has done."""
    found = afterwards()
    yield from judge_archiver(found)
    for snapshot in look():
        yield from judge_stored(snapshot, found)
        yield from judge_timeline(snapshot, found)
    age, bound = exposed(), period("IOP_RPO") or found["timeout"] + int(options().get("archive-timeout", 60))
    late = f"the oldest commit that the repository does not have is {age or 0:.0f} s old, more than {bound}"
    yield from broken((age is None or age <= bound, "critical", late, "see archive_timeout, and PostgreSQL's log"))
    yield f"last archived: {found['archived']}, waiting: {found['ready']}"
    yield "every commit is in the repository" if age is None else f"oldest commit not in the repository: {age:.0f} s"


def judge_archiver(archiver: Mapping[str, Any]) -> Findings:
    """Judge pg_stat_archiver, the process, and the WAL segments that are marked ``.ready``."""
    failing = f"archiving {archiver['failed']} failed, and no success since ({archiver['failures']} failures)"
    many = f"{archiver['ready']} WAL segments wait for the archive"
    bound, waiting, age = limit("IOP_READY_AGE"), archiver["waiting"] or 0, archiver["age"]
    moving = waiting <= bound or (age is not None and age <= bound)
    stuck = f"WAL has been waiting for {waiting:.0f} s, and none was archived meanwhile"
    return broken(
        (not archiver["failing"], "critical", failing, "PostgreSQL's log names the cause"),
        (archiver["alive"] or archiver["up"] < 15, "critical", "no archiver process runs", "see PostgreSQL's log"),
        (moving or archiver["failing"], "critical", stuck, "the archiver or its command hangs: see PostgreSQL's log"),
        (archiver["ready"] <= limit("IOP_READY_LIMIT"), "warning", many, "pg_wal grows: see PostgreSQL's log"),
    )


def judge_stored(snapshot: Snapshot, archiver: Mapping[str, Any]) -> Findings:
    """Judge whether what PostgreSQL calls archived is there; the snapshot is older, so what is missing is confirmed.

    As a rule it has arrived since, which a new listing tells; where not, a backup may have expired with its WAL.
    """
    lost = missing_from(snapshot, archiver)
    if lost:
        lost = missing_from(replace(snapshot, archive=files("archive", snapshot.options)), archiver)
    if lost:
        lost = missing_from(next(other for other in take() if other.key == snapshot.key), archiver)
    hint = "it is lost: take a full backup now; see archive_command and archive-push-queue-max"
    seen = f"{snapshot.name}PostgreSQL calls it archived, but it is not in the repository: {some(lost)}"
    yield from broken((not lost, "critical", seen, hint))


def judge_timeline(snapshot: Snapshot, archiver: Mapping[str, Any]) -> Findings:
    """Judge whether the newest timeline is the server's: a restore to the end follows the newest.

    PostgreSQL begins one with a number that the archive does not have. The server may have begun it just now.
    """
    newest = newest_timeline(snapshot)
    if not archiver["segment"] or newest <= archiver["segment"][:8]:
        return
    running = query("SELECT to_json(CASE WHEN NOT pg_is_in_recovery() THEN pg_walfile_name(pg_current_wal_lsn()) END)")
    strange = running and newest > running[:8]
    seen = f"{snapshot.name}the archive has timeline {newest}, the server is on {(running or '')[:8]}"
    hint = f"did a restored copy archive here? stop it, remove {newest}.history and its WAL: restores would follow it"
    yield from broken((not strange, "critical", seen, hint))


def newest_timeline(snapshot: Snapshot) -> str:
    """Return the newest timeline of the present cluster that the archive has WAL or the history of."""
    name = re.compile(
        rf"{re.escape(snapshot.archive_id)}/(?:[0-9A-F]{{16}}/)?([0-9A-F]{{8}})(?:[0-9A-F]{{16}}-|\.history)"
    )
    return max((match[1] for path in snapshot.archive for match in [name.match(path)] if match), default="")


def missing_from(snapshot: Snapshot, archiver: Mapping[str, Any]) -> list[str]:
    """Return what is done, but not there, as far back as the newest full backup needs it; what is older may expire."""
    last = re.match("[0-9A-F]{24}$", archiver["archived"] or "")
    claimed = {*archiver["done"], *([last[0]] if last else [])}
    starts = [entry["archive"]["start"] for entry in snapshot.present if entry["type"] == "full"]
    since = max(filter(None, starts), default=last[0] if last else "")
    return sorted(name for name in claimed - stored(snapshot) if name >= since)


def stored(snapshot: Snapshot) -> set[str]:
    """Return the segments of the present cluster that are in the repository."""
    mine = (path for path in snapshot.archive if path.startswith(f"{snapshot.archive_id}/"))
    return {match[1] for path in mine for match in [SEGMENT.fullmatch(path)] if match}


def unarchived_for(snapshot: Snapshot, server: Mapping[str, Any]) -> float | None:
    """Return the age of the oldest commit that is not in the repository, read from the WAL on the server."""
    if not server["segment"] or not server["data"]:
        return None
    timeline = server["segment"][:8]
    newest = max((name for name in stored(snapshot) if name[:8] == timeline), default="")
    # Later files are there for later use. pg_waldump waits some seconds for a file that is not there, thus the end.
    waiting = [name for name in server["wal"] if name[:8] == timeline and newest < name <= server["segment"]]
    if not waiting:
        return None
    begin, end = lsn(waiting[0], server["size"]), lsn(waiting[-1], server["size"]) + server["size"]
    argv = ["pg_waldump", f"--path={server['data']}/pg_wal", f"--timeline={int(timeline, 16)}"]
    argv += [f"--start={format_lsn(begin)}", f"--end={format_lsn(end)}", "--rmgr=Transaction", "--limit=64"]
    records = [record for record in map(parse_record, ask("env", "TZ=UTC", *argv).stdout.splitlines()) if record]
    times = [record.when for record in records if record.when and record.text.startswith("COMMIT")]
    if not times:
        return None
    age = time.time() - times[0].timestamp()
    # Before anything of a timeline is archived, its first segment begins with its parent's commits.
    return max(age if newest else min(age, float(server["up"])), 0.0)


def lsn(segment: str, size: int) -> int:
    """Return where a segment begins."""
    return (int(segment[8:16], 16) << 32) + int(segment[16:], 16) * size
