"""What makes PostgreSQL archive, and when: its settings, its archiver, pgBackRest's stop file, a second server."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pytest_iopbackup.errors import ProofError
from pytest_iopbackup.faults import processes
from pytest_iopbackup.faults.base import Expected, Fault
from pytest_iopbackup.faults.common import require_lost
from pytest_iopbackup.faults.site import Site
from pytest_iopbackup.limits import wait_until
from pytest_iopbackup.stack.base import Service


class ArchiveModeOff(Fault):
    """WAL is recycled unarchived. Only until it is recycled does a restart with archive_mode=on still archive it."""

    name = "archive-mode-off"
    stacks = frozenset({"local", "compose"})
    title = "archive_mode is off after a restart: WAL is recycled, and archived nowhere"
    tags = ("archiving", "postgresql")
    expected = Expected(signal="configuration", reason=r"archive_mode is off")
    loses_window = True

    def inject(self, site: Site) -> None:
        """Turn it off, restart, and let a checkpoint recycle WAL."""
        site.set("archive_mode", "off")
        site.restart()
        self.segment = site.switch_wal()
        site.sql("CHECKPOINT")

    def prove(self, site: Site) -> str:
        """See that a segment is neither on the server nor in the repository."""
        return f"archive_mode is {site.setting('archive_mode')!r}; {require_lost(site, self.segment)}"

    def heal(self, site: Site) -> None:
        """Go back to what postgresql.conf says, and restart."""
        site.start()
        site.set("archive_mode", None)
        if site.setting("archive_mode") != "on":
            site.restart()


class ArchiveModePending(Fault):
    """The next restart, whoever makes it, ends archiving."""

    name = "archive-mode-pending"
    title = "archive_mode is off in the configuration, and the restart that brings it into force is still to come"
    tags = ("archiving", "postgresql")
    expected = Expected(signal="configuration", reason=r"not in force yet: archive_mode")
    silent = True

    def inject(self, site: Site) -> None:
        """Change it without a restart."""
        site.set("archive_mode", "off")

    def prove(self, site: Site) -> str:
        """Read what PostgreSQL says of it."""
        rows = site.sql("SELECT setting FROM pg_settings WHERE name = 'archive_mode' AND pending_restart")
        if not rows:
            raise ProofError("archive_mode is not pending")
        return f"archive_mode is {rows[0][0]!r}, and a restart is pending"

    def heal(self, site: Site) -> None:
        """Go back to what postgresql.conf says."""
        site.set("archive_mode", None)


class ArchiverStopped(Fault):
    """PostgreSQL counts no failure."""

    name = "archiver-stopped"
    title = "The archiver's process hangs: nothing is archived, and nothing counts as failed"
    tags = ("archiving", "postgresql")
    expected = Expected(signal="wal-archiving", reason=r"\[082\]")
    stopped: tuple[int, ...] = ()

    def inject(self, site: Site) -> None:
        """Stop it."""
        self.stopped = (processes.backend(site, "archiver"),)
        processes.send(site, "STOP", *self.stopped)

    def prove(self, site: Site) -> str:
        """Read its state."""
        return processes.require_stopped(site, *self.stopped)

    def heal(self, site: Site) -> None:
        """Let it go on."""
        processes.send(site, "CONT", *self.stopped)


class StopFile(Fault):
    """What ``pgbackrest stop`` leaves holds for every command that writes, until ``pgbackrest start``."""

    name = "stop-file"
    title = "pgbackrest stop was run for maintenance, and start forgotten"
    tags = ("archiving", "configuration")
    expected = Expected(signal="wal-archiving", reason=r"\[(062|082)\]")

    def inject(self, site: Site) -> None:
        """Run it."""
        site.run("pgbackrest", "stop")

    def prove(self, site: Site) -> str:
        """See the file."""
        found = site.files(site.stack.places.lock, "*.stop")
        if not found:
            raise ProofError("there is no stop file")
        return f"{found[0]} is there"

    def heal(self, site: Site) -> None:
        """Allow everything again."""
        site.run("pgbackrest", "start")


class ArchiveTimeoutOff(Fault):
    """``pgbackrest check`` switches WAL itself, and hides it."""

    name = "archive-timeout-off"
    title = "archive_timeout is 0: what an idle server has committed stays on the server"
    tags = ("archiving", "postgresql")
    expected = Expected(signal="configuration", reason=r"archive_timeout is 0")
    silent = True

    def inject(self, site: Site) -> None:
        """Set it; a reload is enough."""
        site.set("archive_timeout", "0")

    def prove(self, site: Site) -> str:
        """Read the running setting."""
        found = site.setting("archive_timeout")
        if found != "0":
            raise ProofError(f"archive_timeout is {found}")
        return "archive_timeout is 0"

    def heal(self, site: Site) -> None:
        """Go back to what postgresql.conf says."""
        site.set("archive_timeout", None)


class CommitNotArchived(ArchiveTimeoutOff):
    """Nobody looked for some seconds, and so nobody made the server archive."""

    name = "commit-not-archived"
    title = "A commit is on the server alone for longer than may be lost, as nothing ends its WAL segment"
    fleeting = True
    expected = Expected(signal="archiver", reason=r"the oldest commit that the repository does not have is \d+ s old")
    variables: ClassVar = {"IOP_RPO": "3"}

    def inject(self, site: Site) -> None:
        """Commit while the check worker is away, and let time pass."""
        site.stack.stop(Service.CHECK)
        super().inject(site)
        site.switch_wal()
        xid = site.sql("SELECT pg_current_xact_id()::xid")[0][0]
        wait_until(
            lambda: site.sql(f"SELECT clock_timestamp() - pg_xact_commit_timestamp('{xid}') > '3.5 s'")[0][0],
            limit=site.limits.command,
            what="a commit to be as old as none may be",
        )
        site.stack.start(Service.CHECK)

    def heal(self, site: Site) -> None:
        """Go back, with a check worker."""
        super().heal(site)
        if not site.stack.running(Service.CHECK):
            site.stack.start(Service.CHECK)


class CloneArchivesFirst(Fault):
    """A copy of the data directory is another cluster of the same identity: nothing tells their WAL apart."""

    name = "clone-archives-first"
    title = "A copy of the server was started beside it, and has archived a segment of the same name first"
    tags = ("archiving", "split-brain")
    expected = Expected(
        signal="wal-archiving", reason=r"is in the repository, but PostgreSQL counts none archived after 0", within=20
    )
    foreign: tuple[Path, ...] = ()

    def inject(self, site: Site) -> None:
        """Copy the stopped server, start the copy, let it archive, stop it, start the server again."""
        data, clone = site.stack.places.data, _clone(site)
        site.stack.stop(Service.CHECK)
        site.stack.stop(Service.DATABASE)
        archive = site.archive()
        before = set(site.files(archive, "0*-*"))
        copy = 'mkdir -p "$2/sock" "$2/lock" "$2/spool"; ln -sfn ../conf "$2/conf"; cp -a "$1" "$2/data"'
        site.script(f'{copy}; chown -Rh --reference="$1" "$2"', data, clone)
        environment = [f"PGDATA={clone}/data", f"PGHOST={clone}/sock"]
        environment += [f"PGBACKREST_{name}_PATH={clone}/{part}"
                        for name, part in (("PG1", "data"), ("LOCK", "lock"), ("SPOOL", "spool"))]  # fmt: skip
        options = f"-c unix_socket_directories={clone}/sock -c listen_addresses= -c fsync=off"
        options += " -c dynamic_shared_memory_type=mmap -c shared_buffers=16MB"
        site.run(
            "env", *environment, "pg_ctl", "start", "--wait", "--silent", f"--log={clone}/log", f"--options={options}"
        )
        try:
            write = "SELECT pg_logical_emit_message(true, 'clone', '')"
            switch = "SELECT pg_walfile_name(pg_switch_wal())"
            psql = ("psql", "--no-psqlrc", "--tuples-only", "--no-align", "--quiet")
            said = site.run("env", *environment, *psql, f"--command={write}", f"--command={switch}").stdout
            site.await_archived(said.split()[-1])
        finally:
            site.run("env", *environment, "pg_ctl", "stop", "--wait", "--silent", "--mode=immediate", check=False)
            self.foreign = tuple(sorted(set(site.files(archive, "0*-*")) - before))
        site.start()
        site.stack.start(Service.CHECK)
        site.switch_wal()

    def prove(self, site: Site) -> str:
        """See the foreign segment, and the server's own of that name waiting."""
        name = self.foreign[0].name[:24] if self.foreign else "none"
        ready = site.stack.places.data / "pg_wal" / "archive_status" / f"{name}.ready"
        if not site.exists(ready):
            raise ProofError(f"the server does not wait for segment {name}")
        return f"{self.foreign[0].name} is the copy's; {ready.name} is there"

    def heal(self, site: Site) -> None:
        """Take what is foreign out of the repository: the server's own is tried again."""
        site.surgery("rm", "-f", *map(str, self.foreign)) if self.foreign else None
        site.surgery("rm", "-rf", str(_clone(site)))
        site.start()
        if not site.stack.running(Service.CHECK):
            site.stack.start(Service.CHECK)


def _clone(site: Site) -> Path:
    return site.stack.places.data.with_name("clone")


FAULTS: tuple[type[Fault], ...] = (
    ArchiveModeOff,
    ArchiveModePending,
    ArchiverStopped,
    StopFile,
    ArchiveTimeoutOff,
    CommitNotArchived,
    CloneArchivesFirst,
)
