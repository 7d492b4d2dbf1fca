"""A place of a Compose stack as a volume: what is done to its mounts is done in every container that has it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pytest_iopbackup.errors import CommandError
from pytest_iopbackup.faults.site import Site
from pytest_iopbackup.faults.volumes import Volume

_EACH = 'mountpoint -q "$1" || exit 0; '
"""Not every container has every volume."""


@dataclass(frozen=True, slots=True)
class ContainerVolume(Volume):
    """A volume is a mount from the start, and of a limited size where ``Fault.sizes`` asks for that."""

    def make_tmpfs(self, *, room: int | None = None, inodes: int | None = None) -> None:
        """See :class:`Volume`: nothing to be done."""

    def bind(self) -> None:
        """See :class:`Volume`: it is one."""

    def cover(self, options: str) -> None:
        """See :class:`Volume`: with a file system of its own in each container."""
        owner = self.site.script('stat -c "uid=%u,gid=%g,mode=%a" "$1"', self.place).strip()
        self._within(_EACH + 'mount -t tmpfs -o "$2" iop "$1"', f"{owner},{options}")

    def remount_read_only(self) -> None:
        """See :class:`Volume`."""
        self._within(_EACH + 'mount -o remount,bind,ro "$1"')

    def unmount(self) -> None:
        """See :class:`Volume`: what is mounted last goes, and what it covers comes back."""
        self._within(_EACH + 'umount --lazy "$1"')

    def put_back(self) -> None:
        """See :class:`Volume`: where a container does not have it, or cannot write, by starting the containers anew."""
        try:
            self._within('findmnt --noheadings --output=OPTIONS --target="$1" | tail -1 | grep -qE "^rw|,rw"')
        except CommandError:
            self.site.stack.remount()

    def _within(self, script: str, *arguments: str) -> None:
        argv = ("sh", "-ec", script, "sh", str(self.place), *arguments)
        self.site.stack.within(*argv, timeout=self.site.limits.command)


def volume(site: Site, place: Path) -> Volume:
    """Return a place of a stack as what it is there."""
    return ContainerVolume(site, place) if site.stack.kind == "compose" else Volume(site, place)
