"""WAL that was lost without anybody having looked: only the loss is left to be seen."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

from pytest_iopbackup.errors import ProofError
from pytest_iopbackup.faults.base import Expected, Fault
from pytest_iopbackup.faults.common import await_acknowledged, require_lost
from pytest_iopbackup.faults.site import Site
from pytest_iopbackup.stack.base import Service


class UnnoticedLoss(Fault):
    """Something that went wrong while no check ran, and was put right before the next one: only the loss is left."""

    silent = True
    loses_window = True
    segment = ""

    @abstractmethod
    def lose(self, site: Site) -> str:
        """Break archiving and end a segment; return its name."""

    @abstractmethod
    def restore_order(self, site: Site) -> None:
        """Put everything right again but the loss."""

    def inject(self, site: Site) -> None:
        """Lose a segment while the check worker is away."""
        site.stack.stop(Service.CHECK)
        self.segment = self.lose(site)
        if site.setting("archive_mode") == "on":
            await_acknowledged(site, self.segment)
        self.restore_order(site)
        site.await_archived(site.switch_wal())  # archiving works again, and has gone on
        site.stack.start(Service.CHECK)

    def prove(self, site: Site) -> str:
        """See that the segment is not in the repository, though archiving works."""
        return require_lost(site, self.segment)

    def heal(self, site: Site) -> None:
        """Nothing brings it back: a new full backup begins anew."""
        self.restore_order(site)
        if not site.stack.running(Service.CHECK):
            site.stack.start(Service.CHECK)


class QueueMaxDrop(UnnoticedLoss):
    """pgBackRest tells PostgreSQL that WAL is archived when it has dropped it."""

    name = "queue-max-drop"
    title = "archive-push-queue-max dropped WAL while the repository could not be written; it can again since"
    fleeting = True
    tags = ("archiving", "configuration")
    expected = Expected(signal="archiver", reason=r"PostgreSQL calls it archived, but it is not in the repository: 0")

    def lose(self, site: Site) -> str:
        """Take the right to write away, and let a segment be dropped."""
        section = "[global:archive-push]\n"
        site.edit(_configuration(site), lambda text: text.replace(section, f"{section}archive-push-queue-max=1\n"))
        self.archive = site.archive()
        site.script('find "$1" -type d -exec chmod a-w {} +', self.archive)
        return site.switch_wal()

    def restore_order(self, site: Site) -> None:
        """Give the right back, and the configuration."""
        archive = getattr(self, "archive", None)
        if archive:
            site.script('find "$1" -type d -exec chmod u+w {} +', archive)
        site.put_back(_configuration(site))


def _configuration(site: Site) -> Path:
    return site.stack.places.configuration / "pgbackrest.conf"


class ArchiveGap(UnnoticedLoss):
    """Between two checks, so that no check ever saw the command."""

    name = "archive-gap"
    title = "archive_command was /bin/true for a moment while nobody looked: a segment is missing ever since"
    tags = ("archiving", "archive-command")
    expected = Expected(signal="wal-chain", reason=r"WAL is missing from the repository: 0")

    def lose(self, site: Site) -> str:
        """Let a segment be acknowledged by it, and recycled."""
        site.set("archive_command", "/bin/true")
        return site.switch_wal()

    def restore_order(self, site: Site) -> None:
        """Go back to what postgresql.conf says; a checkpoint lets PostgreSQL forget what it called archived."""
        site.set("archive_command", None)
        site.sql("CHECKPOINT")


class StaleSpool(UnnoticedLoss):
    """A spool volume that outlived its cluster: the new one writes segments of the old one's names."""

    name = "stale-spool"
    title = "The spool of an older cluster says of the next segment that it is pushed: it is acknowledged, and lost"
    fleeting = True
    tags = ("archiving", "spool")
    expected = Expected(signal="archiver", reason=r"PostgreSQL calls it archived, but it is not in the repository: 0")

    def lose(self, site: Site) -> str:
        """Put the mark of success there for the segment in use, then end that."""
        segment = site.sql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")[0][0]
        mark = site.stack.places.spool / "archive" / site.stack.stanza / "out" / f"{segment}.ok"
        site.run("sh", "-c", 'mkdir -p "${1%/*}" && : >"$1"', "sh", str(mark))
        ended = site.switch_wal()
        if ended != segment:
            raise ProofError(f"WAL went on to {ended} by itself")
        return ended

    def restore_order(self, site: Site) -> None:
        """There is nothing to do: it was used up."""


class WalLevelMinimal(UnnoticedLoss):
    """All segments are there, but recovery refuses to pass the record that says so: an interlude for a bulk load."""

    name = "wal-level-minimal"
    title = "wal_level was minimal for a moment while nobody looked: no recovery gets past it, though no WAL is missing"
    tags = ("archiving", "postgresql")
    expected = Expected(signal="wal-chain", reason=r"recovery ends there: wal_level was minimal")
    record = ""
    away: ClassVar = {"wal_level": "minimal", "archive_mode": "off", "max_wal_senders": "0"}

    def lose(self, site: Site) -> str:
        """Restart with it, and write."""
        for name, value in self.away.items():
            site.set(name, value)
        site.restart()
        site.sql("CREATE TABLE interlude AS SELECT generate_series(1, 100) AS id")
        site.sql("DROP TABLE interlude")
        segment = str(site.sql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")[0][0])
        path = site.stack.places.data / "pg_wal" / segment
        records = site.run("pg_waldump", "--rmgr=XLOG", str(path), check=False).stdout  # it fails at the end of WAL
        self.record = next((line for line in records.splitlines() if "wal_level=minimal" in line), "")
        return segment

    def restore_order(self, site: Site) -> None:
        """Restart as before."""
        site.start()
        for name in self.away:
            site.set(name, None)
        if site.setting("wal_level") != "replica":
            site.restart()

    def prove(self, site: Site) -> str:
        """Quote PostgreSQL's own reader on the segment, which is in the repository."""
        if not self.record:
            raise ProofError(f"{self.segment} has no record of wal_level=minimal")
        return f"{site.archived(self.segment).name} is there, with this record: {self.record}"


FAULTS: tuple[type[Fault], ...] = (
    QueueMaxDrop,
    ArchiveGap,
    StaleSpool,
    WalLevelMinimal,
)
