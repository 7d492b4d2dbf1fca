"""What a restore asks of the server that it will replace. Python 3.9 or later, standard library only."""

from __future__ import annotations

import time
from datetime import datetime, timezone

from probes import Problem, ask, limit, query
from repository import Refused, parse_lsn
from wal import Archive


def is_up() -> bool:
    """Whether a server answers that writes WAL."""
    return ask("pg_isready", "--quiet").returncode == 0 and not query("SELECT to_json(pg_is_in_recovery())")


def insert_lsn() -> int:
    """Return where the server's next WAL record goes."""
    return parse_lsn(query("SELECT to_json(pg_current_wal_insert_lsn()::text)"))


def last_commit() -> datetime | None:
    """Return the time of the last commit, which a server has forgotten when it was restarted since."""
    text = query(
        "SELECT json_build_array(CASE WHEN current_setting('track_commit_timestamp')::bool THEN"
        " (SELECT to_char(timestamp AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') FROM pg_last_committed_xact()) END)"
    )[0]
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc) if text else None


def committed_at(xid: int) -> float | None:
    """Return when a transaction was committed, in seconds since 1970, if the server remembers."""
    try:
        (answer,) = query(f"SELECT json_build_array(extract(epoch FROM pg_xact_commit_timestamp('{xid}'::xid)))")
    except Problem:
        return None
    return None if answer is None else float(answer)


def flush(archive: Archive) -> None:
    """Let the server archive all that it has written, and wait until the repository has it; raise Refused if it fails.

    pg_stat_archiver tells only what was tried. A restore point comes first: an idle server would not switch, and a
    target at the present place needs a record after it.
    """
    before = archive.last
    segment = query(
        "SELECT json_build_array(pg_create_restore_point('restore planned'), pg_walfile_name(pg_switch_wal()))"
    )[1]
    seconds = limit("IOP_ARCHIVE_CHECK_TIMEOUT")
    deadline = time.monotonic() + seconds
    while True:
        archive.load()
        if segment in archive.names and archive.hole(before, archive.number(segment)) is None:
            return
        if time.monotonic() > deadline:
            raise Refused(
                f"WAL does not reach the repository ({segment} not within {seconds} s): a restore would lose it",
                "repair archiving: ./control.sh check; or stop the database first, to restore what the repository has",
            )
        time.sleep(0.2)
