"""Clocks: a server or a worker that lives a day ahead or behind, and what is left of it when its clock is right again.

A clock is moved for single programs, by libfaketime. Labels and times of backups are by the server's clock.
"""

from __future__ import annotations

import functools
import subprocess
import time
from pathlib import Path
from typing import ClassVar

from pytest_iopbackup.cluster.checks import read_status
from pytest_iopbackup.cluster.pgbackrest import json_in
from pytest_iopbackup.errors import ProofError
from pytest_iopbackup.faults.base import Expected, Fault
from pytest_iopbackup.faults.site import Site
from pytest_iopbackup.limits import wait_until
from pytest_iopbackup.stack.base import Service

DAY = 86400
# libfaketime makes shared memory for each program that finds none, and leaves it where that does not end of itself. So
# all are given one piece: what a program left that was killed at once.
_SHARE = "echo $$; kill -KILL $$"
_SERVE = """eval "$(cat "$PGDATA/postmaster.opts") >>'$1' 2>&1 </dev/null &\""""
_WORK = """bash "$1/worker.sh" check env LD_PRELOAD="$3" bash "$1/check.sh" >>"$2" 2>&1 </dev/null & echo $!"""


@functools.cache
def library() -> str | None:
    """Return where libfaketime is; None where it is not installed."""
    found = subprocess.run(
        ["find", "/usr/lib", "/usr/lib64", "/usr/local/lib", "-name", "libfaketime.so.1"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return next(iter(found.stdout.splitlines()), None)


class Clock(Fault):
    """Some program's clock is wrong."""

    silent = True
    offset: ClassVar[int] = DAY
    """Seconds that it is ahead."""

    @classmethod
    def obstacle(cls, kind: str) -> str | None:
        """See :class:`Fault`; it takes libfaketime, too."""
        found = super().obstacle(kind)
        if found is None and library() is None:
            return f"the fault {cls.name} takes libfaketime: apt-get install faketime"
        return found

    def __init__(self) -> None:
        self._share = ""

    def environment(self, site: Site, service: Service) -> tuple[str, ...]:
        """Return what moves the clock of a program, and of all that it starts, but for ``LD_PRELOAD`` itself."""
        clock = f"FAKETIME={self.offset:+d}"
        if not self._share:
            preload = f"LD_PRELOAD={library()}"
            printed = site.run("env", preload, clock, "sh", "-c", _SHARE, service=service, check=False).stdout
            self._share = printed.strip()
        return (clock, f"FAKETIME_SHARED=/faketime_sem_{self._share} /faketime_shm_{self._share}")

    def leave(self, site: Site) -> None:
        """Remove the memory that was shared."""
        if self._share:
            memory = Path("/dev/shm")  # noqa: S108 - its place
            site.script(
                'rm -f "$@"', memory / f"sem.faketime_sem_{self._share}", memory / f"faketime_shm_{self._share}"
            )

    def turn(self, site: Site) -> None:
        """Restart PostgreSQL, with its clock moved."""
        environment = (*self.environment(site, Service.DATABASE), "FAKETIME_DONT_FAKE_MONOTONIC=1")
        site.stack.stop(Service.DATABASE)
        log = site.stack.places.state / "server-with-another-clock.log"
        site.run("env", *environment, f"LD_PRELOAD={library()}", "sh", "-ec", _SERVE, "sh", str(log))
        site.await_server()

    def turn_back(self, site: Site) -> None:
        """Restart PostgreSQL as it was."""
        if not site.stack.running(Service.DATABASE):
            site.run("pg_ctl", "stop", "--wait", "--mode=fast", check=False)
            site.start()
        self.leave(site)


class ServerClock(Clock):
    """PostgreSQL's clock, as long as the fault lasts."""

    def inject(self, site: Site) -> None:
        """Turn it."""
        self.turn(site)

    def prove(self, site: Site) -> str:
        """Ask PostgreSQL what time it is."""
        ahead = float(site.sql("SELECT extract(epoch FROM clock_timestamp())")[0][0]) - time.time()
        if abs(ahead - self.offset) > 60:
            raise ProofError(f"the server's clock is {ahead:.0f} s ahead")
        return f"the server's clock is {ahead:.0f} s ahead"

    def heal(self, site: Site) -> None:
        """Turn it back, and forget backups of the future: no label may come after theirs."""
        self.turn_back(site)
        forget_future(site)


class ServerClockAhead(ServerClock):
    """Backups of now look like tomorrow's; once it is right again, none is possible for a day."""

    name = "server-clock-ahead"
    title = "The server's clock is a day ahead: commits and backups get times of the future"
    tags = ("time", "clock")
    expected = Expected(signal="postgresql", reason=r"clock is 8\d{4} s ahead", within=20)
    writes = False  # the ledger's judge, too, tells by commit times what has to be there


class ServerClockBehind(ServerClock):
    """A new label would come before that of the last backup: pgBackRest refuses."""

    name = "server-clock-behind"
    title = "The server's clock is a day behind: no backup is possible, and times of commits go back"
    tags = ("time", "clock")
    offset = -DAY
    loses_window = True
    expected = Expected(signal="postgresql", reason=r"clock is 8\d{4} s behind", within=20)


class BackupFromTheFuture(Clock):
    """What remains when a server's clock was wrong for some time, and a backup was taken then."""

    name = "backup-from-the-future"
    title = "A backup was taken while the server's clock was a day ahead: until then no other one is possible"
    tags = ("time", "backups")
    expected = Expected(signal="backups", reason=r"taken in the future: backup \S+D")

    def inject(self, site: Site) -> None:
        """Turn the clock, take a backup, turn it back. No transaction of the server's own may end meanwhile."""
        site.set("autovacuum", "off")
        self.turn(site)
        script = str(site.stack.places.configuration / "backup.sh")
        site.run("bash", script, "diff", service=Service.BACKUP)
        self.turn_back(site)

    def prove(self, site: Site) -> str:
        """Look up the newest backup's time."""
        newest = site.backups()[-1]
        ahead = newest.stopped.timestamp() - time.time()
        if ahead < 3600:
            raise ProofError(f"backup {newest.label} ended {-ahead:.0f} s ago")
        return f"backup {newest.label} ended {ahead:.0f} s from now"

    def heal(self, site: Site) -> None:
        """Make sure of the clock, and forget the backup."""
        self.turn_back(site)
        site.set("autovacuum", None)
        forget_future(site)


class CheckWorkerClock(Clock):
    """Ages, forecasts and the report's own times are wrong."""

    name = "check-worker-clock-ahead"
    title = "The checks run with a clock that is a day ahead: whatever they say of ages is wrong"
    tags = ("time", "workers")
    expected = Expected(signal="postgresql", reason=r"clock is 8\d{4} s behind", within=20)

    def __init__(self) -> None:
        super().__init__()
        self._process = ""

    def inject(self, site: Site) -> None:
        """Start another check worker in its place. Bash itself cannot wait with this clock."""
        environment = (*self.environment(site, Service.CHECK), "PGBACKREST_FREQUENCY=1")
        site.stack.stop(Service.CHECK)
        places = site.stack.places
        arguments = (str(places.configuration), str(places.state / "worker-with-another-clock.log"), library() or "")
        started = site.run("env", *environment, "sh", "-ec", _WORK, "sh", *arguments, service=Service.CHECK)
        self._process = started.stdout.strip()

    def prove(self, site: Site) -> str:
        """Read when they say that they ended."""
        status = read_status(site.stack)
        ahead = status.finished.timestamp() - time.time() if status else 0
        if ahead < self.offset - 60:
            raise ProofError(f"the checks say that they ended {-ahead:.0f} s ago")
        return f"the checks say that they ended {ahead:.0f} s from now"

    def heal(self, site: Site) -> None:
        """End it, and start the right one."""
        if self._process:
            site.surgery("kill", self._process, check=False)
            wait_until(lambda: not self._alive(site), limit=site.limits.stop, what="the check worker to end", pause=0.1)
        if not site.stack.running(Service.CHECK):
            site.stack.start(Service.CHECK)
        self.leave(site)

    def _alive(self, site: Site) -> bool:
        return site.surgery("kill", "-0", self._process, check=False).exit_code == 0


def forget_future(site: Site) -> None:
    """Expire backups of the future, with what pgBackRest and the checks remember of them.

    pgBackRest refuses a label that is not later than all others, also those in ``backup.history``.
    """
    stanzas = json_in(site.run("pgbackrest", "info", "--output=json", service=Service.BACKUP))
    mine = [entry for stanza in stanzas if stanza["name"] == site.stack.stanza for entry in stanza["backup"]]
    labels = [entry["label"] for entry in reversed(mine) if entry["timestamp"]["stop"] > time.time() + 60]
    if not labels:
        return
    for label in labels:
        site.run("pgbackrest", "expire", f"--set={label}", service=Service.BACKUP)
        history = site.stack.places.repository / "backup" / site.stack.stanza / "backup.history"
        site.script('rm -f "$1"/*/"$2".manifest*', history, label)
    site.stack.stop(Service.CHECK)  # or it might write down again what it remembers
    site.script('rm -f "$1"/remembered-"$2"-repository-*', site.stack.places.state, site.stack.stanza)
    site.stack.start(Service.CHECK)


FAULTS: tuple[type[Fault], ...] = (ServerClockAhead, ServerClockBehind, BackupFromTheFuture, CheckWorkerClock)
