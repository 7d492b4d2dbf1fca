"""A restored server that pauses at its target and is moved on to the next: many recovery points for one restore.

A recovery target can be set at server start only (PostgreSQL's manual, "Recovery Target"). Stopped while it is paused
and started again, the server goes on from its last restartpoint; so targets have to come in the order of WAL.

A transaction under way at the target keeps its ACCESS EXCLUSIVE locks on a standby, too, and nothing ends it there:
what it has locked can be read only when recovery has ended. So the data directory is set aside there, the server is
promoted, which rolls that transaction back, and is read; then what was set aside is moved on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_iopbackup.cluster import pgbackrest
from pytest_iopbackup.cluster.lsn import parse_lsn
from pytest_iopbackup.cluster.recovery import refusal, stopped_at
from pytest_iopbackup.cluster.restore import restore_options
from pytest_iopbackup.cluster.targets import By, Target, parse_time, plain_time
from pytest_iopbackup.errors import CommandError, DeadlineError, RecoveryError
from pytest_iopbackup.limits import Limits, wait_until
from pytest_iopbackup.record import BackupFacts
from pytest_iopbackup.stack.base import Restorable, Service

if TYPE_CHECKING:
    import psycopg

_KINDS = (By.TIME, By.XID, By.LSN, By.NAME)
_STATE = """
    SELECT pg_is_in_recovery(), CASE WHEN pg_is_in_recovery() THEN pg_get_wal_replay_pause_state() END,
           pg_last_wal_replay_lsn()::text,
           EXISTS (SELECT FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation  -- not one that it has just made
                   WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock' AND l.granted)"""
_SET_ASIDE = """
[ -z "$(ls -A "$1/pg_tblspc")" ] || exit 3
rm -rf "$2"
cp -a "$1" "$2"
"""
"""A tablespace lies elsewhere, and would be shared with the copy."""
_BRING_BACK = """
mv "$1/postgresql.auto.conf" "$2"
find "$1" -mindepth 1 -delete
find "$2" -mindepth 1 -maxdepth 1 -exec mv -t "$1" {} +
"""
"""With the settings that were last written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Paused:
    """A server that stands at its target and answers queries."""

    reached: str
    """PostgreSQL's own words."""
    replayed: int
    """Where the last record that it has replayed ends: a byte position."""
    locked: bool
    """Whether a transaction under way keeps others from reading what it has locked."""


class Standby:
    """A place to restore into, and the one connection to the server that stands there."""

    def __init__(self, stack: Restorable, limits: Limits) -> None:
        self._stack = stack
        self._limits = limits
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None
        self.base: BackupFacts | None = None
        """What was restored there; None unless it is paused, so that it can be moved on."""
        self._set: dict[str, str | None] = {}
        """What :meth:`_aim` has written."""
        self._aside = False
        """Whether the data directory from before a promotion waits to be brought back."""
        self.restores = 0

    @property
    def connection(self) -> psycopg.Connection[tuple[Any, ...]]:
        """To the server at its target, in autocommit mode. Raises RecoveryError where there is none."""
        if self._connection is None:
            raise RecoveryError("there is no server at a recovery target")
        return self._connection

    def reach(self, target: Target, base: BackupFacts) -> Paused:
        """Pause at a target that does not lie before the present one: move on, or else restore ``base``.

        Raises RecoveryError.
        """
        moves, self.base = self.base == base, None
        if moves:
            self._aim(target)
        self._halt()
        if not moves:
            self._stack.wipe_data()
            pgbackrest.restore(self._stack, restore_options(target, base, action="pause"), self._limits)
            self._set = {}
            self.restores += 1
        elif self._aside:
            self._run(_BRING_BACK)
        self._aside = False
        paused = self._await_pause()
        self.base = base
        return paused

    def promote(self) -> None:
        """End recovery where it is paused; :meth:`reach` goes on from there all the same. Raises RecoveryError."""
        base, self.base = self.base, None
        self._halt()
        self._aside = self._run(_SET_ASIDE)
        self._await_pause()
        self._resume()
        if self._aside:
            self.base = base

    def end(self) -> None:
        """End recovery where it is paused, if it has not ended, and for good. Raises RecoveryError."""
        self.base = None
        if not self._ended():
            self._resume()

    def close(self) -> None:
        """Remove it."""
        self._hang_up()
        self._stack.close()

    def _resume(self) -> None:
        self.connection.execute("SELECT pg_wal_replay_resume()")  # at a target, it promotes
        wait_until(self._ended, limit=self._limits.recovery, what="the end of recovery", pause=0.01)

    def _ended(self) -> bool:
        row = self.connection.execute("SELECT NOT pg_is_in_recovery()").fetchone()
        return bool(row and row[0])

    def _run(self, script: str) -> bool:
        """Run a script on the data directory and its place aside; false where it says 3."""
        places = self._stack.places
        argv = ["sh", "-ec", script, "sh", str(places.data), str(places.spool / "aside")]
        done = self._stack.host(Service.DATABASE).run(argv, timeout=self._limits.command, check=False)
        if done.exit_code not in {0, 3}:
            raise CommandError(done)
        return done.exit_code == 0

    def _halt(self) -> None:
        self._hang_up()
        self._stack.stop(Service.DATABASE, immediate=True)  # in order it takes a second: see _ask

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _aim(self, target: Target) -> None:
        """Write what the next start is to recover to: ALTER SYSTEM works on a standby, and takes no program."""
        from psycopg import sql  # noqa: PLC0415 - costs 60 ms, which runs without a stack need not pay

        kept = str(self._stack.places.spool / "kept")
        for name, value in {**settings(target), "restore_command": _restore_command(kept)}.items():
            if name in self._set and self._set[name] == value:
                continue
            words = "RESET {}" if value is None else "SET {} = {}"
            self.connection.execute(sql.SQL(f"ALTER SYSTEM {words}").format(sql.Identifier(name), sql.Literal(value)))
            self._set[name] = value

    def _await_pause(self) -> Paused:
        offset = self._stack.database_log_size()
        self._stack.start(Service.DATABASE)

        def paused() -> Paused | None:
            if not self._stack.running(Service.DATABASE):
                raise refusal(self._stack.database_log(offset))
            # Asked only then: connections that are refused cost more than the replay.
            reached = stopped_at(self._stack.database_log(offset))
            return self._ask(reached) if reached else None

        try:
            return wait_until(paused, limit=self._limits.recovery, what="recovery to pause at its target", pause=0.002)
        except DeadlineError as error:
            tail = "\n".join(self._stack.database_log(offset).splitlines()[-5:])
            raise RecoveryError(f"{error.message}. PostgreSQL's log ends in:\n{tail}") from error

    def _ask(self, reached: str) -> Paused | None:
        """Return where the server stands, once it is paused; None before.

        It then makes a restartpoint, to go on from when it is stopped at once. Stopped in order, it would take up to a
        second: while it is paused, recovery looks for a shutdown once a second (``recoveryPausesHere`` in
        xlogrecovery.c).
        """
        import psycopg  # noqa: PLC0415 - costs 60 ms, which runs without a stack need not pay

        try:
            if self._connection is None:
                self._connection = self._stack.connect()
            row = self._connection.execute(_STATE).fetchone()
            if row is not None and row[1] == "paused":
                self._connection.execute("CHECKPOINT")
        except psycopg.OperationalError:  # not consistent yet
            self._hang_up()
            return None
        if row is None or not row[0]:
            raise RecoveryError("recovery has ended instead of pausing at its target")
        return Paused(reached=reached, replayed=parse_lsn(row[2]), locked=row[3]) if row[1] == "paused" else None


def _restore_command(kept: str) -> str:
    """Return what asks ``pgbackrest archive-get`` once for each file, at the start that needs it.

    Each start replays from the last restartpoint on. To get the same WAL again and again took most of its time. A link
    is enough: recovery writes to no segment, and does not recycle what is no regular file (``RemoveXlogFile``).
    """
    ask = f'mkdir -p "{kept}" && pgbackrest archive-get %f "{kept}/%f.part" && mv "{kept}/%f.part" "{kept}/%f"'
    return f'''test -e "{kept}/%f" || {{ {ask}; }} && exec ln -sf "{kept}/%f" "%p"'''


def settings(target: Target) -> Mapping[str, str | None]:
    """Return the settings that make recovery pause at a target; None for those that must not be set."""
    value = target.value or ""
    if target.by is By.TIME:
        value = plain_time(parse_time(value))
    return {
        **{f"recovery_target_{by.value}": value if by is target.by else None for by in _KINDS},
        "recovery_target_inclusive": "off" if target.exclusive else "on",
        "recovery_target_action": "pause",
        "recovery_target_timeline": str(target.timeline or "latest"),
    }
