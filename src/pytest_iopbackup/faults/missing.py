"""Something that the repository had is not there any more: WAL, backups, what describes them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from pytest_iopbackup.errors import ProofError
from pytest_iopbackup.faults.base import Expected, Fault
from pytest_iopbackup.faults.put_back import put_back_with_wal
from pytest_iopbackup.faults.site import Site
from pytest_iopbackup.stack.base import Service


class Lost(Fault):
    """Something is moved out of the repository, and later back to its place."""

    def __init__(self) -> None:
        self._gone: Sequence[Path] = ()

    @abstractmethod
    def victims(self, site: Site) -> Sequence[Path]:
        """Return what is to go; may first make it."""

    def inject(self, site: Site) -> None:
        """Move it away."""
        self._gone = self.victims(site)
        for path in self._gone:
            site.take_away(path)

    def prove(self, site: Site) -> str:
        """Look for it."""
        there = [str(path) for path in self._gone if site.exists(path)]
        if there or not self._gone:
            raise ProofError(f"still there: {', '.join(there)}")
        return f"not there: {', '.join(str(path) for path in self._gone)}"

    def heal(self, site: Site) -> None:
        """Move it back."""
        for path in self._gone:
            site.put_back(path)


class InfoLost(Lost):
    """A file that tells what there is, and its copy."""

    tags = ("repository", "repository-damaged")
    part: ClassVar[str]

    def victims(self, site: Site) -> Sequence[Path]:
        """Return both."""
        directory = site.stack.places.repository / self.part / site.stack.stanza
        return [directory / f"{self.part}.info", directory / f"{self.part}.info.copy"]


class BackupInfoLost(InfoLost):
    """Without it no backup is known."""

    name = "backup-info-lost"
    title = "backup.info and its copy are gone: no backup is known"
    expected = Expected(signal="repository", reason=r"missing stanza data \(status 3\)|055")
    part = "backup"


class ArchiveInfoLost(InfoLost):
    """Without it no WAL is taken."""

    name = "archive-info-lost"
    title = "archive.info and its copy are gone: no WAL is taken, no backup is possible"
    expected = Expected(signal="wal-archiving", reason=r"055|archive\.info")
    part = "archive"


class BackupInfoHalfLost(Lost):
    """The copy is there, and used: until it is damaged, too."""

    name = "backup-info-half-lost"
    title = "backup.info is gone, its copy is used: one more loss, and no backup is known"
    tags = ("repository", "repository-damaged")
    silent = True
    fleeting = True
    expected = Expected(signal="backups", reason=r"backup\.info is missing or empty")

    def victims(self, site: Site) -> Sequence[Path]:
        """Return it."""
        return (site.stack.places.repository / "backup" / site.stack.stanza / "backup.info",)

    def heal(self, site: Site) -> None:
        """Copy the copy, unless a backup has done so, with itself listed."""
        for path in self._gone:
            site.script('[ -e "$1" ] || cp -a "$1.copy" "$1"; rm -f "$2"', path, site.saved(path))


class Gone(Lost):
    """All that is the stanza's is away. Archiving that had just begun may still make directories in its place."""

    def prove(self, site: Site) -> str:
        """Look for what tells what there is."""
        repository, stanza = site.stack.places.repository, site.stack.stanza
        infos = [repository / part / stanza / f"{part}.info" for part in ("archive", "backup")]
        there = [str(path) for path in infos if site.exists(path)]
        if there or not self._gone:
            raise ProofError(f"still there: {', '.join(there)}")
        return f"not there: {', '.join(str(path) for path in (*self._gone, *infos))}"


class StanzaDirectoryDeleted(Gone):
    """The repository is there, but not what is ours in it."""

    name = "stanza-directory-deleted"
    title = "The stanza's directories were deleted from the repository"
    tags = ("repository", "repository-unreachable")
    expected = Expected(signal="repository", reason=r"missing stanza path")

    def victims(self, site: Site) -> Sequence[Path]:
        """Return both."""
        return [site.stack.places.repository / part / site.stack.stanza for part in ("archive", "backup")]

    def heal(self, site: Site) -> None:
        """Move them back, with WAL that came meanwhile."""
        for path in self._gone:
            put_back_with_wal(site, path, ".")


class WalDeleted(Lost):
    """A restore past it ends there, and calls that success."""

    name = "wal-deleted"
    title = "A WAL segment after the last backup was deleted: a restore ends there and looks fine"
    tags = ("repository", "wal")
    silent = True
    expected = Expected(signal="wal-chain", reason=r"WAL is missing from the repository: 0\w+; recovery ends at")

    def victims(self, site: Site) -> Sequence[Path]:
        """Return one that has successors."""
        segment = site.await_archived(site.switch_wal())
        site.await_archived(site.switch_wal())
        return (segment,)


class WalDeletedInBackup(Lost):
    """Not even the backup's own end can be reached."""

    name = "wal-deleted-in-backup"
    title = "The WAL segment that makes the newest backup consistent was deleted: the backup is useless"
    tags = ("repository", "wal")
    silent = True
    expected = Expected(signal="wal-chain", reason=r"WAL is missing .*useless without it: \d{8}-\d{6}F_")

    def victims(self, site: Site) -> Sequence[Path]:
        """Return the segment that it ended in."""
        return (site.archived(site.backups()[-1].stop_wal),)


class RepositoryWalRolledBack(Lost):
    """A snapshot younger than the last backup: nothing but WAL is missing."""

    name = "repository-wal-rolled-back"
    title = "The repository is as it was some minutes ago: the WAL archived since is not in it"
    fleeting = True
    tags = ("repository", "wal")
    silent = True
    expected = Expected(signal="archiver", reason=r"calls it archived, but it is not in the repository: 0")

    def victims(self, site: Site) -> Sequence[Path]:
        """Return three segments that are just archived."""
        segments = [site.switch_wal() for _ in range(3)]
        return [site.await_archived(segment) for segment in segments]


class BackupDeleted(Lost):
    """Somebody made room by hand."""

    name = "backup-deleted"
    title = "The directory of a listed backup was deleted"
    tags = ("repository", "repository-damaged")
    silent = True
    expected = Expected(signal="backups", reason=r"backup \S+F is listed, but not there")

    def victims(self, site: Site) -> Sequence[Path]:
        """Return the full backup that the other one builds on."""
        return (backup_directory(site, 0),)

    def heal(self, site: Site) -> None:
        """Put it back, and let pgBackRest list it again: a backup taken meanwhile has taken it off its list."""
        super().heal(site)
        _relist(site)


class ManifestDeleted(Lost):
    """Without it a backup is a heap of files, which pgBackRest removes as soon as it expires anything."""

    name = "manifest-deleted"
    title = "The manifest of a backup and its copy were deleted: nobody knows what its files are"
    tags = ("repository", "repository-damaged")
    silent = True
    expected = Expected(signal="backups", reason=r"backup \S+F_\S+D has no backup\.manifest")

    def victims(self, site: Site) -> Sequence[Path]:
        """Return those of the newest backup."""
        self._directory = backup_directory(site, -1)
        site.keep(self._directory)
        return [self._directory / name for name in ("backup.manifest", "backup.manifest.copy")]

    def heal(self, site: Site) -> None:
        """Put the whole backup back, and let pgBackRest list it again."""
        if self._gone:
            site.put_back(self._directory)
            _relist(site)


class ManifestCopyDeleted(ManifestDeleted):
    """pgBackRest uses the copy where the manifest is lost or damaged."""

    name = "manifest-copy-deleted"
    title = "The copy of a backup's manifest was deleted: one more loss, and nobody knows what its files are"
    expected = Expected(signal="backups", reason=r"backup \S+F_\S+D has no backup\.manifest\.copy")

    def victims(self, site: Site) -> Sequence[Path]:
        """Return that of the newest backup."""
        return super().victims(site)[1:]


def backup_directory(site: Site, number: int) -> Path:
    """Return where a backup lies, by its number in the list: 0 is the oldest, -1 the newest."""
    return site.stack.places.repository / "backup" / site.stack.stanza / site.backups()[number].label


def _relist(site: Site) -> None:
    site.run("pgbackrest", "expire", service=Service.BACKUP)


FAULTS: tuple[type[Fault], ...] = (
    BackupInfoLost,
    ArchiveInfoLost,
    BackupInfoHalfLost,
    StanzaDirectoryDeleted,
    WalDeleted,
    WalDeletedInBackup,
    RepositoryWalRolledBack,
    BackupDeleted,
    ManifestDeleted,
    ManifestCopyDeleted,
)
