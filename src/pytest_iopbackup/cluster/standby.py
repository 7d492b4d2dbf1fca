"""A restored server that pauses at its target and is moved on to the next: many recovery points for one restore.

A recovery target can be set at server start only (PostgreSQL's manual, "Recovery Target"). Stopped while it is paused
and started again, the server goes on from its last restartpoint; so targets have to come in the order of WAL.
"""

from __future__ import annotations

from dataclasses import dataclass

from pytest_iopbackup.cluster import pgbackrest
from pytest_iopbackup.cluster.lsn import parse_lsn
from pytest_iopbackup.cluster.recovery import refusal, stopped_at
from pytest_iopbackup.cluster.restore import restore_options
from pytest_iopbackup.cluster.targets import By, Target, parse_time, plain_time
from pytest_iopbackup.errors import DeadlineError, RecoveryError
from pytest_iopbackup.limits import Limits, wait_until
from pytest_iopbackup.record import BackupFacts
from pytest_iopbackup.stack.base import Restorable, Service

_STATE = """
    SELECT pg_is_in_recovery(), CASE WHEN pg_is_in_recovery() THEN pg_get_wal_replay_pause_state() END,
           pg_last_wal_replay_lsn()::text"""
_REWRITE = """
[ -d "$1" ] || mkdir "$1"
file=$2; shift 2
sed -i -e "/^recovery_target/d" -e "/^restore_command/d" "$file"
printf "%s\\n" "$@" >>"$file"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Paused:
    """A server that stands at its target and answers queries."""

    reached: str
    """PostgreSQL's own words."""
    replayed: int
    """Where the last record that it has replayed ends: a byte position."""


def restore_paused(stack: Restorable, target: Target, chosen: BackupFacts, limits: Limits) -> Paused:
    """Restore into an empty place, replay up to the target, and pause there. Raises RecoveryError."""
    pgbackrest.restore(stack, restore_options(target, chosen, action="pause"), limits)
    return _await_pause(stack, limits)


def move_on(stack: Restorable, target: Target, limits: Limits) -> Paused:
    """Replay on to a target that does not lie before the present one, and pause there. Raises RecoveryError."""
    stack.stop(Service.DATABASE, immediate=True)  # in order it takes a second: see _paused
    file = str(stack.places.data / "postgresql.auto.conf")
    kept = str(stack.places.spool / "kept")
    argv = ["sh", "-ec", _REWRITE, "sh", kept, file, *settings(target), _restore_command(kept)]
    stack.host(Service.DATABASE).run(argv, timeout=limits.command)
    return _await_pause(stack, limits)


def _restore_command(kept: str) -> str:
    """Return the line with which ``pgbackrest archive-get`` is asked once for each file, at the start that needs it.

    Each start replays from the last restartpoint on. To get the same WAL again and again took most of its time. A link
    is enough: recovery writes to no segment, and does not recycle what is no regular file (``RemoveXlogFile``).
    """
    ask = f'pgbackrest archive-get %f "{kept}/%f.part" && mv "{kept}/%f.part" "{kept}/%f"'
    return f"""restore_command = 'test -e "{kept}/%f" || {{ {ask}; }} && ln -sf "{kept}/%f" "%p"'"""


def settings(target: Target) -> list[str]:
    """Return the lines of ``postgresql.auto.conf`` that make recovery pause at a target."""
    value = target.value or ""
    if target.by is By.TIME:
        value = plain_time(parse_time(value))
    values = {
        f"recovery_target_{target.by.value}": value.replace("'", "''"),
        "recovery_target_inclusive": "off" if target.exclusive else "on",
        "recovery_target_action": "pause",
        "recovery_target_timeline": str(target.timeline or "latest"),
    }
    return [f"{name} = '{text}'" for name, text in values.items()]


def _await_pause(stack: Restorable, limits: Limits) -> Paused:
    offset = stack.database_log_size()
    stack.start(Service.DATABASE)

    def paused() -> int | None:
        if not stack.running(Service.DATABASE):
            raise refusal(stack.database_log(offset))
        # Asked only then: connections that are refused cost more than the replay.
        return _paused(stack) if stopped_at(stack.database_log(offset)) else None

    try:
        replayed = wait_until(paused, limit=limits.recovery, what="recovery to pause at its target", pause=0.02)
    except DeadlineError as error:
        tail = "\n".join(stack.database_log(offset).splitlines()[-5:])
        raise RecoveryError(f"{error.message}. PostgreSQL's log ends in:\n{tail}") from error
    reached = stopped_at(stack.database_log(offset))
    if reached is None:
        raise RecoveryError("recovery paused without saying that it has reached its target")
    return Paused(reached=reached, replayed=replayed)


def _paused(stack: Restorable) -> int | None:
    """Return where the last replayed record ends, once the server is paused; None before.

    It then makes a restartpoint, to go on from when it is stopped at once. Stopped in order, it would take up to a
    second: while it is paused, recovery looks for a shutdown once a second (``recoveryPausesHere`` in xlogrecovery.c).
    """
    import psycopg  # noqa: PLC0415 - costs 60 ms, which runs without a stack need not pay

    try:
        with stack.connect() as connection:
            row = connection.execute(_STATE).fetchone()
            if row is not None and row[1] == "paused":
                connection.execute("CHECKPOINT")
    except psycopg.OperationalError:  # not consistent yet
        return None
    if row is None or not row[0]:
        raise RecoveryError("recovery has ended instead of pausing at its target")
    return parse_lsn(row[2]) if row[1] == "paused" else None
