"""Files that are there and wrong: how they get so, and archived WAL."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

from pytest_iopbackup.errors import ProofError
from pytest_iopbackup.faults.base import Expected, Fault
from pytest_iopbackup.faults.site import Site

FLIP = """byte=$(od -An -tu1 -j "$2" -N 1 "$1")
printf "\\\\$(printf %03o $((byte ^ 255)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none"""
"""For :meth:`Site.script`: turns over all bits of one byte, in a file, at an offset."""


class Damaged(Fault):
    """Files are changed in place, with the times of their last change as before, and put back in the end."""

    def __init__(self) -> None:
        self._files: Sequence[Path] = ()

    @abstractmethod
    def victims(self, site: Site) -> Sequence[Path]:
        """Return the files; may first make them."""

    @abstractmethod
    def damage(self, site: Site, path: Path) -> None:
        """Change one of them."""

    def inject(self, site: Site) -> None:
        """Save them, then change them."""
        self._files = self.victims(site)
        for path in self._files:
            site.keep(path)
            self.damage(site, path)
            site.script('touch -r "$2" "$1"', path, site.saved(path))

    def prove(self, site: Site) -> str:
        """Compare each with what was saved."""
        return "; ".join([compare(site, path) for path in self._files])

    def heal(self, site: Site) -> None:
        """Put them back."""
        for path in self._files:
            site.put_back(path)


class Flipped(Damaged):
    """All bits of one byte are turned over, as by a disk or memory that fails: neither size nor time tell."""

    def damage(self, site: Site, path: Path) -> None:
        """Turn over the one in the middle."""
        site.script(FLIP, path, str(int(site.script('stat -c %s "$1"', path)) // 2))


class Truncated(Damaged):
    """Only half of a file is there, as after a crash without fsync, or a copy that was cut off."""

    def damage(self, site: Site, path: Path) -> None:
        """Cut it off in the middle."""
        site.script('truncate --size=$(($(stat -c %s "$1") / 2)) "$1"', path)


class Emptied(Damaged):
    """A file's name is there, and nothing in it."""

    def damage(self, site: Site, path: Path) -> None:
        """Cut off all of it."""
        site.script(': >"$1"', path)


class ArchivedWal(Damaged):
    """A WAL segment in the repository, with successors."""

    tags = ("corruption", "wal")
    silent = True

    def victims(self, site: Site) -> Sequence[Path]:
        """Return one that is just archived."""
        file = site.await_archived(site.switch_wal())
        site.await_archived(site.switch_wal())
        return (file,)


class WalBitflip(Flipped, ArchivedWal):
    """Recovery ends there, and calls that success."""

    name = "wal-bitflip"
    title = "A byte of an archived WAL segment is wrong, with size and time as before: a restore ends there"
    expected = Expected(
        signal="wal-chain",
        reason=r"WAL is damaged: 0\w+ \((?:cannot be unpacked|does not match its checksum)",
        within=20,
    )


class WalTruncated(Truncated, ArchivedWal):
    """As above."""

    name = "wal-truncated"
    title = "An archived WAL segment is cut off in the middle: a restore ends there"
    expected = Expected(signal="wal-chain", reason=r"WAL is damaged: 0\w+ \(cannot be unpacked")


class WalEmpty(Emptied, ArchivedWal):
    """As above."""

    name = "wal-empty"
    title = "An archived WAL segment is empty: a restore ends there"
    expected = Expected(signal="wal-chain", reason=r"WAL of an impossible size: 0\w+ \(0 bytes\)")


class WalMisnamed(ArchivedWal):
    """Whole by itself, and not what its name says: as from storage that mixes up blocks."""

    name = "wal-misnamed"
    title = "An archived WAL segment holds the content of another one: a restore ends there"
    expected = Expected(signal="wal-chain", reason=r"WAL is damaged: 0\w+ \(does not match its checksum")

    def victims(self, site: Site) -> Sequence[Path]:
        """Return one, and note its successor."""
        file = site.await_archived(site.switch_wal())
        self._other = site.await_archived(site.switch_wal())
        return (file,)

    def damage(self, site: Site, path: Path) -> None:
        """Copy the successor's content into it."""
        site.script('cat "$2" >"$1"', path, self._other)


class WalUnreadable(ArchivedWal):
    """Restores usually run as the same user: they end there."""

    name = "wal-unreadable"
    title = "An archived WAL segment may not be read: a restore ends there"
    tags = ("permissions", "wal")
    expected = Expected(signal="wal-chain", reason=r"WAL is damaged: 0\w+ \(cannot be read: ", within=20)

    def damage(self, site: Site, path: Path) -> None:
        """Take all rights away."""
        site.script('chmod 0 "$1"', path)

    def prove(self, site: Site) -> str:
        """Try to read it."""
        for path in self._files:
            tried = site.run("cat", str(path), check=False)
            if tried.exit_code:
                return " ".join(tried.stderr.split())
        raise ProofError("it can be read")


class WalDuplicate(Fault):
    """Two servers wrote the same segment, each its own way: archive-get refuses to choose."""

    name = "wal-duplicate"
    title = "A WAL segment is in the archive twice, with different content: a restore ends there"
    tags = ("corruption", "wal")
    silent = True
    expected = Expected(signal="wal-chain", reason=r"in the archive twice: 0")

    def __init__(self) -> None:
        self._pair: tuple[Path, Path] | None = None

    def inject(self, site: Site) -> None:
        """Copy another segment to a name of this one."""
        first = site.await_archived(site.switch_wal())
        other = site.await_archived(site.switch_wal())
        double = first.with_name(first.name[:24] + other.name[24:])
        self._pair = other, double
        site.script('cp -a "$1" "$2"', *self._pair)

    def prove(self, site: Site) -> str:
        """Count its files."""
        if self._pair is None:
            raise ProofError("there is no second file")
        double = self._pair[1]
        found = site.files(double.parent, f"{double.name[:24]}-*")
        if len(found) != 2:
            raise ProofError(f"{double.name[:24]} has {len(found)} files")
        return f"there are {' and '.join(path.name for path in found)}"

    def heal(self, site: Site) -> None:
        """Remove the foreign one."""
        if self._pair:
            site.script('rm -f "$1"', self._pair[1])


def compare(site: Site, path: Path) -> str:
    """Say how a file differs from what was saved of it. Raises ProofError where it does not."""
    saved = site.saved(path)
    size, size_before = (int(site.script('stat -c %s "$1"', file)) for file in (path, saved))
    if size != size_before:
        return f"{path.name} has {size} bytes, not {size_before}"
    differing = site.script('cmp -l "$1" "$2" | wc -l', path, saved).strip()
    if differing == "0":
        raise ProofError(f"{path} is as it was")
    return f"{path.name}: {differing} of {size} bytes changed"


FAULTS: tuple[type[Fault], ...] = (
    WalBitflip,
    WalTruncated,
    WalEmpty,
    WalMisnamed,
    WalUnreadable,
    WalDuplicate,
)
