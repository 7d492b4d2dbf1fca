"""One restore for many marks: a standby that recovers to a mark, pauses there, and moves on to the next one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg

from pytest_iopbackup.cluster import pgbackrest
from pytest_iopbackup.cluster.restore import plan, restore_options
from pytest_iopbackup.cluster.targets import By, Target, format_time
from pytest_iopbackup.drill import Drill
from pytest_iopbackup.limits import wait_until
from pytest_iopbackup.proof.verdict import describe, verdict
from pytest_iopbackup.proven import Verdict
from pytest_iopbackup.record import MarkFacts
from pytest_iopbackup.stack.base import Restorable, Service

WAYS = (By.NAME, By.TIME, By.XID, By.LSN)


@dataclass
class Standby:
    """A copy beside a drill's stack; marks are visited in the order of WAL."""

    drill: Drill
    copy: Restorable

    def move(self, mark: MarkFacts, by: By = By.NAME) -> None:
        """Recover to a mark and pause there."""
        if self.copy.running(Service.DATABASE):
            self.copy.stop(Service.DATABASE)
            self._aim(target(mark, by))
        else:
            first = target(mark, by)
            options = restore_options(first, plan(self.copy, first, self.drill.limits))
            pgbackrest.restore(
                self.copy, [option for option in options if "--target-action" not in option], self.drill.limits
            )
        offset = self.copy.database_log_size()
        self.copy.start(Service.DATABASE)
        wait_until(lambda: self._paused(offset), limit=60, what=f"recovery to pause at {mark.name} by {by.value}")

    def differences(self, mark: MarkFacts) -> str | None:
        """Compare with a mark; None if it is exact."""
        facts = self.drill.prove(mark.name, self.copy)
        return None if verdict(facts)[0] is Verdict.PASSED else describe(facts)

    def _aim(self, new: Target) -> None:
        path = self.copy.places.data / "postgresql.auto.conf"
        aims = tuple(f"recovery_target_{by.value} " for by in WAYS)
        kept = [line for line in path.read_text().splitlines() if not line.startswith(aims)]
        path.write_text("\n".join([*kept, f"recovery_target_{new.by.value} = '{new.value}'"]) + "\n")

    def _paused(self, offset: int) -> bool:
        log = self.copy.database_log(offset)
        assert self.copy.running(Service.DATABASE), f"recovery has ended:\n{log[-2000:]}"
        try:
            with self.copy.connect() as connection:
                row = connection.execute("SELECT pg_get_wal_replay_pause_state()").fetchone()
        except psycopg.OperationalError:
            return False
        assert row
        return row[0] == "paused" and "recovery stopping " in log


def target(mark: MarkFacts, by: By) -> Target:
    """Return a mark as a recovery target."""
    values = {
        By.NAME: mark.restore_point,
        By.TIME: format_time(mark.time),
        By.XID: str(mark.xid),
        By.LSN: mark.lsn,
    }
    return Target(by=by, value=values[by], timeline=mark.timeline, at_lsn=mark.lsn)


@contextmanager
def standby(drill: Drill) -> Iterator[Standby]:
    """Give a place for it, which is gone afterwards."""
    copy = drill.stack.copy()
    try:
        yield Standby(drill, copy)
    finally:
        copy.close()
