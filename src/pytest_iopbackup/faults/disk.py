"""Space: a file system with no bytes or no inodes left, one that is about to be full, and WAL that piles up."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from pytest_iopbackup.errors import ProofError
from pytest_iopbackup.faults.base import Expected, Fault
from pytest_iopbackup.faults.container_volumes import volume
from pytest_iopbackup.faults.permissions import ArchiveDirectoryReadOnly
from pytest_iopbackup.faults.site import Site
from pytest_iopbackup.faults.volumes import Volume
from pytest_iopbackup.limits import wait_until
from pytest_iopbackup.stack.base import Service

MIB = 1 << 20
_NO_SPACE = "No space left on device"
_ONE_RUN = 1.5
"""Seconds that a run of the checks takes at a trial's pace."""


class Full(Fault):
    """One of the stack's places on a small file system of its own, with nothing left on it."""

    tags: ClassVar[tuple[str, ...]] = ("disk", "repository")
    needs_root = True
    place: ClassVar[str] = "repository"
    """The field of :class:`~pytest_iopbackup.stack.base.Places`."""
    room: ClassVar[int] = 32 * MIB

    def volume(self, site: Site) -> Volume:
        """Return the place as a volume."""
        path: Path = getattr(site.stack.places, self.place)
        return volume(site, path)

    def inject(self, site: Site) -> None:
        """Give it a small file system, and fill that."""
        volume = self.volume(site)
        volume.make_tmpfs(room=self.room)
        volume.fill()

    def prove(self, site: Site) -> str:
        """Try to write there."""
        volume = self.volume(site)
        probe = volume.place / "probe"
        try:
            return volume.refuses("dd", "if=/dev/zero", f"of={probe}", "bs=64k", "count=1", words=_NO_SPACE)
        finally:
            site.surgery("rm", "-f", str(probe))

    def heal(self, site: Site) -> None:
        """Remove what filled it, see that it takes files again, and give it its old place."""
        volume = self.volume(site)
        volume.empty()
        volume.put_back()


class RepositoryFull(Full):
    """pgBackRest leaves temporary files behind, and WAL waits on the server."""

    name = "repository-full"
    title = "The repository's file system has no space left"
    stacks = frozenset({"local", "compose"})
    sizes: ClassVar[Mapping[str, str]] = {"repository": "96m"}
    expected = Expected(signal="space", reason=r"repository \S+ \d+ of \d+ bytes are free \(0\.\d %\)", within=20)


class RepositoryInodesFull(Full):
    """df shows much space."""

    name = "repository-inodes-full"
    title = "The repository's file system has no inodes left, while much space is free"
    expected = Expected(signal="space", reason=r"repository \S+ 0 of \d+ inodes are free", within=20)

    def inject(self, site: Site) -> None:
        """Give it few inodes, and use them up."""
        volume = self.volume(site)
        volume.make_tmpfs(inodes=64)
        volume.fill_inodes()

    def prove(self, site: Site) -> str:
        """Try to make a file there."""
        volume = self.volume(site)
        return volume.refuses("touch", str(volume.place / "probe"), words=_NO_SPACE)


class RepositoryNearlyFull(Full):
    """Everything still works."""

    name = "repository-nearly-full"
    title = "The repository's file system is nearly full: it will be, soon"
    expected = Expected(signal="space", reason=r"repository \S+ \d+ of \d+ bytes are free \([5-9]\.\d %\)")
    silent = True
    room = 256 * MIB

    def inject(self, site: Site) -> None:
        """Leave some of its space."""
        volume = self.volume(site)
        volume.make_tmpfs(room=self.room)
        volume.fill(leave=20 * MIB)

    def prove(self, site: Site) -> str:
        """Look at what is free."""
        free, size = self.volume(site).space()
        if free > 0.09 * size:
            raise ProofError(f"{free} of {size} bytes are free")
        return f"{free >> 20} of {size >> 20} MiB are free"


class RepositoryFillingUp(Full):
    """There is much space yet."""

    name = "repository-filling-up"
    title = "Something fills the repository's file system, which will be full within a minute"
    expected = Expected(signal="space", reason=r"repository \S+ full in \d+ s", within=20)
    silent = True
    room = 256 * MIB

    def inject(self, site: Site) -> None:
        """Give it a file system of its own, and let something write there, on and on."""
        volume = self.volume(site)
        volume.make_tmpfs(room=self.room)
        site.script(
            'for _ in $(seq "$3"); do head -c 1M /dev/zero; sleep 0.1; done >"$1/filler" 2>/dev/null & echo "$!" >"$2"',
            volume.place,
            self._pid(site),
            "160",
        )  # much is left in the end: that it is full would be another fault

    def prove(self, site: Site) -> str:
        """Look twice at what is free."""
        volume = self.volume(site)
        before, _ = volume.space()
        after = wait_until(lambda: volume.space()[0] < before, limit=5, what="the volume to fill")
        if not after:
            raise ProofError(f"{before} bytes are free, and no fewer later")
        return f"{before >> 20} MiB are free, and fewer from second to second"

    def heal(self, site: Site) -> None:
        """End it first."""
        site.script('[ ! -e "$1" ] || { kill "$(cat "$1")" 2>/dev/null || true; rm "$1"; }', self._pid(site))
        super().heal(site)

    def _pid(self, site: Site) -> Path:
        return site.stack.directory / "filler.pid"


class SpoolFull(Full):
    """What pgBackRest notes there are mostly empty files, which need no space."""

    name = "spool-full"
    title = "The spool's file system has no space left"
    tags = ("disk", "archiving")
    place = "spool"
    room = 4 * MIB
    stacks = frozenset({"local", "compose"})
    sizes: ClassVar[Mapping[str, str]] = {"spool": "16m"}
    expected = Expected(signal="space", reason=r"spool \S+ \d+ of \d+ bytes are free \(0\.\d %\)")


class StateFull(Full):
    """The check worker goes on, and nobody learns what it finds: only its health check can tell."""

    name = "state-full"
    title = "The state directory's file system has no space left: workers and checks cannot report"
    tags = ("disk", "workers")
    place = "state"
    room = 4 * MIB
    expected = Expected(signal="check-worker", reason=r"no heartbeat for \d+ s", within=20)
    silent = True

    def inject(self, site: Site) -> None:
        """Fill it for good: a run of the checks that is under way still removes what it had begun to write."""
        super().inject(site)
        volume = self.volume(site)
        full_since = time.monotonic()

        def stays_full() -> bool:
            nonlocal full_since
            if volume.space()[0]:
                volume.fill()
                full_since = time.monotonic()
            return time.monotonic() - full_since > _ONE_RUN

        wait_until(stays_full, limit=site.limits.command, what="the state directory to stay full")


class WalFull(Full):
    """PostgreSQL stops itself: it must not lose what it cannot write down."""

    name = "wal-full"
    title = "The file system of pg_wal is full: PostgreSQL panics and does not come up again"
    tags = ("disk", "postgresql")
    stacks = frozenset({"local", "compose"})
    sizes: ClassVar[Mapping[str, str]] = {"data": "448m"}
    expected = Expected(signal="space", reason=r"pg_wal \S+ \d+ of \d+ bytes are free \(0\.\d %\)", within=20)
    writes = False

    def volume(self, site: Site) -> Volume:
        """Return pg_wal as a volume."""
        return volume(site, site.stack.places.data / "pg_wal")

    def inject(self, site: Site) -> None:
        """Move pg_wal while the server is down, fill it, and write until the server gives up."""
        site.stack.stop(Service.DATABASE)
        volume = self.volume(site)
        volume.make_tmpfs(room=self.room)
        site.start()
        volume.fill()
        wait_until(lambda: not self._writes(site), limit=site.limits.command, what="PostgreSQL to give up")

    def prove(self, site: Site) -> str:
        """Try to write there, and look into the server's log."""
        words = super().prove(site)
        if "PANIC" not in site.stack.database_log():
            raise ProofError("PostgreSQL has not panicked")
        return f"{words}; PostgreSQL: PANIC"

    def heal(self, site: Site) -> None:
        """Make room; stopped at once: a fast shutdown may never end during recovery from a crash (seen: 15.18)."""
        site.stack.stop(Service.DATABASE, immediate=True)
        super().heal(site)
        site.start()

    def _writes(self, site: Site) -> bool:
        import psycopg  # noqa: PLC0415 - costs 60 ms, which runs without a stack need not pay

        try:
            for _ in range(3):
                site.switch_wal()
        except psycopg.OperationalError:
            return False
        return True


class WalPilesUp(ArchiveDirectoryReadOnly):
    """PostgreSQL keeps what it cannot archive."""

    name = "wal-piles-up"
    title = "WAL is written and none is archived: pg_wal grows without a limit"
    tags = ("disk", "archiving")
    segments: ClassVar[int] = 12
    expected = Expected(signal="archiver", reason=r"\d+ WAL segments wait for the archive", within=20)
    variables: ClassVar[Mapping[str, str]] = {"IOP_READY_LIMIT": "8"}

    def inject(self, site: Site) -> None:
        """Write a lot."""
        super().inject(site)
        for _ in range(self.segments):
            site.switch_wal()

    def prove(self, site: Site) -> str:
        """Count what waits."""
        waiting = len(site.files(site.stack.places.data / "pg_wal" / "archive_status", "*.ready"))
        if waiting < self.segments:
            raise ProofError(f"{waiting} WAL segments wait")
        return f"{super().prove(site)}; {waiting} WAL segments wait"


FAULTS: tuple[type[Fault], ...] = (
    RepositoryFull,
    RepositoryInodesFull,
    RepositoryNearlyFull,
    RepositoryFillingUp,
    SpoolFull,
    WalFull,
    StateFull,
    WalPilesUp,
)
