"""Timelines: one whose beginning is not known, one that nobody wanted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pytest_iopbackup.errors import ProofError
from pytest_iopbackup.faults.base import Expected, Fault
from pytest_iopbackup.faults.corruption import Damaged
from pytest_iopbackup.faults.missing import Lost
from pytest_iopbackup.faults.site import Site
from pytest_iopbackup.limits import wait_until
from pytest_iopbackup.stack.base import Restorable, Service


class HistoryFileDeleted(Lost):
    """Recovery does not learn where to leave the old timeline."""

    name = "history-file-deleted"
    title = "The history of the newest timeline was deleted from the archive: recovery cannot follow it"
    tags = ("repository", "wal", "timeline")
    silent = True
    expected = Expected(signal="wal-chain", reason=r"no history of timeline 0000000[2-9]: recovery cannot follow it")

    def victims(self, site: Site) -> Sequence[Path]:
        """Promote the server."""
        return (promoted(site),)


class HistoryAltered(Damaged):
    """No backup is on the new timeline's way, then, and PostgreSQL refuses to follow it."""

    name = "history-altered"
    title = "The archived history of the newest timeline says that it began earlier: no restore can follow it"
    tags = ("corruption", "wal", "timeline")
    silent = True
    expected = Expected(
        signal="wal-chain",
        reason=r"the history of timeline 0000000[2-9] is wrong: it left .*, by the server",
        within=20,
    )

    def victims(self, site: Site) -> Sequence[Path]:
        """Promote the server."""
        return (promoted(site),)

    def damage(self, site: Site, path: Path) -> None:
        """Have it leave its parent in the very first segment, before there was any backup."""
        size = int(site.sql("SELECT setting FROM pg_settings WHERE name = 'wal_segment_size'")[0][0])
        site.script('sed -i "s,[0-9A-F]*/[0-9A-F]*,0/$2," "$1"', path, f"{size + 40:X}")


class TimelineForeignSegment(Fault):
    """A restored copy that archives: the newest timeline of the archive is the copy's."""

    name = "timeline-foreign"
    title = "A restored copy archives into the same repository: a restore to the end follows the copy's timeline"
    tags = ("corruption", "wal", "timeline")
    silent = True
    expected = Expected(signal="archiver", reason=r"has timeline 00000002, the server is on 00000001")

    def __init__(self) -> None:
        self._copy: Restorable | None = None
        self._archive: Path | None = None

    def inject(self, site: Site) -> None:
        """Restore beside the server, and start it as it is: with archive_mode on."""
        self._archive = site.archive()
        self._copy = copy = site.stack.copy()
        copy.restore([], timeout=site.limits.restore)
        host, data = copy.host(Service.DATABASE), copy.places.data
        options = f"-c listen_addresses='' -c fsync=off -c unix_socket_directories={copy.directory / 'sock'}"
        prepared = site.sql("SHOW max_prepared_transactions")[0][0]  # no fewer, or recovery refuses
        options += f" -c max_prepared_transactions={prepared}"
        start = ["pg_ctl", "start", "-w", "-D", str(data), "-l", str(data / "log.txt"), "-o", options]
        if host.run(start, timeout=site.limits.start, check=False).exit_code:
            log = host.run(["tail", "-n", "5", str(data / "log.txt")], timeout=site.limits.command).stdout
            raise ProofError(f"the copy does not start: {log}")
        switch = ["psql", "-qXAt", "-c", "SELECT pg_switch_wal() WHERE NOT pg_is_in_recovery()"]

        def switched() -> bool:
            return host.run(switch, timeout=site.limits.command).stdout.strip() != ""

        wait_until(switched, limit=site.limits.start, what="the copy to be promoted")
        wait_until(lambda: len(self._foreign(site)) > 1, limit=site.limits.archive, what="the copy to archive")
        copy.close()

    def prove(self, site: Site) -> str:
        """List its files."""
        found = self._foreign(site)
        if not found:
            raise ProofError("the archive holds nothing of another timeline")
        return f"the archive holds {' and '.join(path.name for path in found)}"

    def heal(self, site: Site) -> None:
        """Remove them."""
        if self._copy:
            self._copy.close()
        if self._archive:
            site.script('rm -rf "$@"', *self._foreign(site), *self._archive.glob("00000002*"))

    def _foreign(self, site: Site) -> list[Path]:
        if self._archive is None:
            return []
        return [*site.files(self._archive, "00000002*"), *site.files(self._archive, "*.partial-*")]


def promoted(site: Site) -> Path:
    """Promote the server, as after a failover, and let it archive; return the file of the new timeline's history."""
    site.stack.stop(Service.DATABASE)
    site.run("touch", str(site.stack.places.data / "standby.signal"))
    site.start()
    site.sql("SELECT pg_promote()")
    segment = site.await_archived(site.switch_wal())
    return segment.parents[1] / f"{segment.name[:8]}.history"


FAULTS: tuple[type[Fault], ...] = (
    HistoryFileDeleted,
    HistoryAltered,
    TimelineForeignSegment,
)
