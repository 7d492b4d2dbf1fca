"""The volumes of repository and spool: not mounted, mounted wrong, frozen, or turned read-only."""

from __future__ import annotations

import shutil
from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

from pytest_iopbackup.errors import ProofError
from pytest_iopbackup.faults.base import Expected, Fault
from pytest_iopbackup.faults.container_volumes import volume
from pytest_iopbackup.faults.site import Site
from pytest_iopbackup.faults.volumes import Volume
from pytest_iopbackup.stack.base import Service

_RESCUE = 'if [ -d "$1" ] && [ ! -e "$1/archive.info" ]; then mkdir -p "$2" && cp -a "$1/." "$2/"; fi'
_BRING = 'if [ -d "$2" ]; then find "$2" -name "*.tmp" -delete && cp -an "$2/." "$1/" && rm -rf "$2"; fi'


class OfVolume(Fault):
    """Something about the volume that one of the stack's places is on."""

    tags: ClassVar[tuple[str, ...]] = ("repository", "mounts")
    needs_root = True
    place: ClassVar[str] = "repository"
    """The field of :class:`~pytest_iopbackup.stack.base.Places`."""

    def volume(self, site: Site) -> Volume:
        """Return the place as a volume."""
        path: Path = getattr(site.stack.places, self.place)
        return volume(site, path)

    @abstractmethod
    def inject(self, site: Site) -> None:
        """Break it."""

    def heal(self, site: Site) -> None:
        """Mount what belongs there."""
        self.volume(site).put_back()


class Unmounted(OfVolume):
    """A volume that was in use is taken away; programs that have files open in it keep those."""

    def inject(self, site: Site) -> None:
        """Make the place a mount, see that it works, and take it away."""
        volume = self.volume(site)
        volume.bind()
        site.await_archived(site.switch_wal())
        volume.unmount()

    def prove(self, site: Site) -> str:
        """Look at the mount table, and at the mount point."""
        volume = self.volume(site)
        left = site.run("ls", "-A", str(volume.place)).stdout.split()
        if volume.mounted or {"archive", "backup"} <= set(left):
            raise ProofError(f"{volume.place} is mounted ({volume.mounted}) or holds {left}")
        return f"nothing is mounted at {volume.place.name}, an empty mount point"


class RepositoryUnmounted(Unmounted):
    """The mount point belongs to pgBackRest's user: it could write there."""

    name = "repository-unmounted"
    title = "The repository's volume is not mounted any more: its mount point is there, and empty"
    stacks = frozenset({"local", "compose"})
    expected = Expected(signal="repository", reason=r"missing stanza path \(status 1\)")


class SpoolUnmounted(Unmounted):
    """The mount point is root's, as whoever prepares a server makes it."""

    name = "spool-unmounted"
    title = "The spool's volume is not mounted any more: its mount point belongs to root"
    tags = ("archiving", "mounts")
    place = "spool"
    expected = Expected(signal="repository", reason=r"no right to write or to read \S+/spool\b", within=20)

    def inject(self, site: Site) -> None:
        """Take the volume away, and the mount point, too."""
        super().inject(site)
        site.script('rm -rf "$1"/*; chown root:root "$1"; chmod 755 "$1"', self.volume(site).place)

    def prove(self, site: Site) -> str:
        """Try to write there."""
        volume = self.volume(site)
        words = volume.refuses("touch", str(volume.place / "probe"), words="Permission denied")
        return f"{super().prove(site)}: {words}"


class RepositoryWrongVolume(OfVolume):
    """A repository by its looks."""

    name = "repository-wrong-volume"
    title = "Another system's volume is mounted at the repository's place"
    stacks = frozenset({"local", "compose"})
    expected = Expected(signal="repository", reason=r"missing stanza path \(status 1\)")

    def inject(self, site: Site) -> None:
        """Mount it over the right one, and let pgBackRest make a stanza there."""
        self.volume(site).cover("size=64m")
        for service in Service:
            site.run("pgbackrest", "--stanza=another", "stanza-create", "--no-online", service=service)

    def prove(self, site: Site) -> str:
        """Look at what is mounted, and at what is in it."""
        volume = self.volume(site)
        stanzas = site.run("ls", "-A", str(volume.place / "archive")).stdout.split()
        if "tmpfs" not in volume.mounted or stanzas != ["another"]:
            raise ProofError(f"mounted is {volume.mounted or 'nothing'}, with the stanzas {stanzas}")
        return f"mounted is {volume.mounted}, with a repository of the stanza {stanzas[0]}"

    def heal(self, site: Site) -> None:
        """Unmount it, the right one is below; with the WAL that a push under way had taken to the wrong one."""
        archive = site.stack.places.repository / "archive" / site.stack.stanza
        places = (str(archive), str(site.stack.places.spool / "meanwhile"))
        site.run("sh", "-ec", _RESCUE, "sh", *places)
        self.volume(site).unmount()
        site.run("sh", "-ec", _BRING, "sh", *places)


class RemountedReadOnly(OfVolume):
    """As a kernel does when it meets an error in a file system."""

    def inject(self, site: Site) -> None:
        """Remount it."""
        self.volume(site).remount_read_only()

    def prove(self, site: Site) -> str:
        """Try to write there."""
        volume = self.volume(site)
        return volume.refuses("touch", str(volume.place / "probe"), words="Read-only file system")


class RepositoryRemountedReadOnly(RemountedReadOnly):
    """Everything can be read, so info and verify are content."""

    name = "repository-remounted-read-only"
    title = "The repository is mounted read-only: nothing new gets into it"
    stacks = frozenset({"local", "compose"})
    expected = Expected(signal="space", reason=r"repository is mounted read-only", within=20)


class SpoolRemountedReadOnly(RemountedReadOnly):
    """Asynchronous pushing cannot note its results."""

    name = "spool-remounted-read-only"
    title = "The spool is mounted read-only: WAL cannot be pushed in the background"
    tags = ("archiving", "mounts")
    place = "spool"
    expected = Expected(signal="space", reason=r"spool is mounted read-only", within=20)


class RepositoryFrozen(OfVolume):
    """Reading goes on; whoever writes waits in uninterruptible sleep."""

    name = "repository-frozen"
    title = "The repository's file system is frozen: whoever writes hangs and cannot even be killed"
    tags = ("repository", "mounts", "hang")
    expected = Expected(signal="wal-archiving", reason=r"\[082\] .*before the \d+ms timeout", within=20)

    @classmethod
    def obstacle(cls, kind: str) -> str | None:
        """Return why not: it takes loop devices, too."""
        if found := super().obstacle(kind):
            return found
        there = [shutil.which(name, path="/usr/sbin:/sbin:/usr/bin:/bin") for name in ("mkfs.ext4", "fsfreeze")]
        if not all(there) or not Path("/dev/loop-control").exists():
            return f"the fault {cls.name} takes loop devices, mkfs.ext4 and fsfreeze"
        return None

    def inject(self, site: Site) -> None:
        """Make the repository an ext4 of its own, and freeze that."""
        volume = self.volume(site)
        volume.make_ext4(room=64 << 20)
        volume.freeze()

    def prove(self, site: Site) -> str:
        """Look at a process that sets a time, to what it is: it must hang, and not be moved by SIGKILL."""
        path = self.volume(site).place
        state = site.script(
            'touch -c -r "$1" "$1" >/dev/null 2>&1 & kid=$!; sleep 0.2; kill -KILL "$kid" 2>/dev/null || true; '
            'sleep 0.1; [ ! -e "/proc/$kid/stat" ] || cut -d" " -f1-3 "/proc/$kid/stat"',
            path,
        )  # the pauses are its time to begin, and to die where nothing holds it
        if not state.strip().endswith("D"):
            raise ProofError(f"a writer is in state {state.strip() or 'ended'}")
        return "a program that writes is in uninterruptible sleep, and survives SIGKILL"

    def heal(self, site: Site) -> None:
        """Thaw it, then as all others."""
        self.volume(site).thaw()
        super().heal(site)


FAULTS: tuple[type[Fault], ...] = (
    RepositoryUnmounted,
    RepositoryWrongVolume,
    RepositoryFrozen,
    RepositoryRemountedReadOnly,
    SpoolRemountedReadOnly,
    SpoolUnmounted,
)
