"""Watches a restored server to the end of its recovery, or to the reason why it has none."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone

from pytest_iopbackup.errors import DeadlineError, RecoveryError
from pytest_iopbackup.limits import Limits, wait_until
from pytest_iopbackup.stack.base import Restorable, Service

_STAMP = r"(?P<at>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}) UTC \[\d+\][^:]* LOG:\s+"
_REDO_DONE = re.compile(_STAMP + r"redo done at (?P<lsn>\S+)", re.MULTILINE)
_STOPPING = re.compile(r"LOG:\s+(recovery stopping .*)")
_LAST_TRANSACTION = re.compile(r"LOG:\s+last completed transaction was at log time (\S+ \S+)")
_TROUBLE = re.compile(r"(?:FATAL|PANIC):  (?!the database system is )(.*)")
_FETCHED = re.compile(r'LOG:\s+restored log file "[0-9A-F]{24}" from archive')
_WRITING_TIMELINE = """
    SELECT pg_current_xact_id(), ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int"""
_HINTS = {
    "recovery ended before configured recovery target was reached": "the target lies after the last archived WAL, or "
    "WAL in between is missing, or no restore point has that name; choose another target, or none for the end of WAL",
    "requested recovery stop point is before consistent recovery point": "the target lies before the end of the backup "
    "that was restored; choose an older backup set",
    "could not locate required checkpoint record": "WAL that the backup itself needs is missing from the repository",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """How a recovery ended."""

    reached: str
    last_transaction: datetime | None
    timeline: int
    replay_seconds: float
    ready_seconds: float


def await_recovery(stack: Restorable, log_offset: int, limits: Limits, fetched: Callable[[int], None]) -> Recovery:
    """Start the database and wait until it has left recovery and committed a transaction.

    ``log_offset`` is where this start's part of the log begins; ``fetched`` is told how many segments came from the
    archive so far. ``pg_ctl start`` reports success before recovery fails, so the process, the log and the server are
    all watched. Raises RecoveryError with PostgreSQL's words when it ends instead.
    """
    started, start_clock = datetime.now(timezone.utc), time.monotonic()
    stack.start(Service.DATABASE)

    def timeline() -> int | None:
        fetched(len(_FETCHED.findall(stack.database_log(log_offset))))
        if not stack.running(Service.DATABASE):
            raise refusal(stack.database_log(log_offset))
        return _promoted(stack, limits)

    try:
        now_on = wait_until(timeline, limit=limits.recovery, what="the end of recovery")
    except DeadlineError as error:
        tail = "\n".join(stack.database_log(log_offset).splitlines()[-5:])
        raise RecoveryError(f"{error.message}. PostgreSQL's log ends in:\n{tail}") from error
    total = time.monotonic() - start_clock
    log = stack.database_log(log_offset)
    redo = _REDO_DONE.search(log)
    replay = (_stamp(redo["at"]) - started).total_seconds() if redo else total
    replay = min(max(replay, 0.0), total)
    last = _LAST_TRANSACTION.search(log)
    return Recovery(
        reached=stopped_at(log) or f"end of WAL, redo done at {redo['lsn'] if redo else 'an unknown LSN'}",
        last_transaction=datetime.fromisoformat(last[1] + ":00" if last[1][-3] in "+-" else last[1]) if last else None,
        timeline=now_on,
        replay_seconds=replay,
        ready_seconds=total - replay,
    )


def _promoted(stack: Restorable, limits: Limits) -> int | None:
    """Return the timeline that the server writes on, once it takes a transaction; None before.

    Raises RecoveryError where recovery has ended and the application's database refuses sessions all the same.
    """
    import psycopg  # noqa: PLC0415 - costs 60 ms, which runs without a stack need not pay

    try:
        return _writes_on(stack)
    except psycopg.OperationalError as error:
        if not _refused(error) or not _ended(stack, limits):
            return None
    try:
        return _writes_on(stack)  # for recovery may have ended between the two questions
    except psycopg.OperationalError as error:
        if not _refused(error):
            return None
        raise RecoveryError(
            f"recovery has ended, but the application's database refuses sessions: {_refused(error)}",
            hint="it was restored as the repository has it; choose a target before it became so",
        ) from error


def _writes_on(stack: Restorable) -> int | None:
    with stack.connect() as connection:
        row = connection.execute("SELECT pg_is_in_recovery()").fetchone()
        if row is None or row[0]:
            return None
        row = connection.execute(_WRITING_TIMELINE).fetchone()
    return int(row[1]) if row else None


def _refused(error: Exception) -> str:
    """Return the words in which a server that is up refuses a session; empty where it is not up, or not reached."""
    return "; ".join(_TROUBLE.findall(str(error)))


def _ended(stack: Restorable, limits: Limits) -> bool:
    """Whether recovery has ended, by the word of the database that every server has."""
    ask = ["psql", "-qXAt", "--no-password", "--dbname=postgres", "--command=SELECT pg_is_in_recovery()"]
    answer = stack.host(Service.DATABASE).run(ask, timeout=limits.command, check=False)
    return answer.exit_code == 0 and answer.stdout.strip() == "f"


def stopped_at(log: str) -> str | None:
    """Return PostgreSQL's words on the target at which recovery has stopped; None if it has not."""
    stopping = _STOPPING.search(log)
    return stopping[1] if stopping else None


def refusal(log: str) -> RecoveryError:
    """Return what PostgreSQL's log says of a recovery that ended, with what to do."""
    trouble = _TROUBLE.findall(log)
    if not trouble:
        tail = "\n".join(log.splitlines()[-5:])
        return RecoveryError(f"PostgreSQL ended during recovery without saying why; its log ends in:\n{tail}")
    hint = next((hint for words, hint in _HINTS.items() if any(words in line for line in trouble)), None)
    return RecoveryError("PostgreSQL refused: " + "; ".join(dict.fromkeys(trouble)), hint=hint)


def _stamp(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%d %H:%M:%S.%f").replace(tzinfo=timezone.utc)
