"""Rights to the stack's places: taken away by chmod, or by root having worked there."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

from pytest_iopbackup.errors import ProofError
from pytest_iopbackup.faults.base import Expected, Fault
from pytest_iopbackup.faults.site import Site

_SAVE = r"""
if [ ! -e "$2" ]; then
    mkdir -p "$(dirname "$2")"
    find "$1" ! -type l -printf '%U:%G\0%m\0%p\0' >"$2.part"
    mv "$2.part" "$2"
fi
"""
# From the top down, as find has listed it; what has expired meanwhile is no matter. A file that got its final name
# while they were listed is in no list: it belongs to whom all belonged to.
_GIVE_BACK = r"""
[ -e "$1" ] || exit 0
xargs -0 -n 300 sh -ec 'while [ $# -gt 0 ]; do
    [ ! -e "$3" ] || { chown "$1" "$3"; chmod "$2" "$3"; }
    shift 3
done' sh <"$1"
owner=$(tr "\0" "\n" <"$1" | sed -n "1~3p" | sort -u)
top=$(tr "\0" "\n" <"$1" | sed -n 3p)
[ "$(echo "$owner" | wc -l)" -ne 1 ] || find "$top" ! -type l ! -uid "${owner%:*}" -exec chown "$owner" {} +
rm "$1"
"""


class Rights(Fault):
    """The stack's own user lacks a right; owners and modes are given back exactly."""

    tags: ClassVar[tuple[str, ...]] = ("permissions",)
    change: ClassVar[str]
    """A shell's command that takes the right away from $1."""
    attempt: ClassVar[str]
    """One that takes it, as the stack's user, and changes nothing even where it may."""

    @abstractmethod
    def path(self, site: Site) -> Path:
        """Return what is changed, with all below it where the command does so."""

    def inject(self, site: Site) -> None:
        """Note owners and modes, then change them."""
        path = self.path(site)
        site.script(_SAVE, path, self._saved(site))
        site.script(self.change, path)

    def prove(self, site: Site) -> str:
        """Try to do what is not allowed any more."""
        path = self.path(site)
        found = site.run("env", "LC_ALL=C", "sh", "-c", self.attempt, "sh", str(path), check=False)
        if found.exit_code == 0 or "Permission denied" not in found.stderr:
            raise ProofError(f"{self.attempt}: {found.stderr.strip() or 'no error'}")
        looks = site.surgery("stat", "--format=%A %U:%G", str(path)).stdout.strip()
        return f"{path.name} is {looks}: {found.stderr.strip().splitlines()[-1]}"

    def heal(self, site: Site) -> None:
        """Give back what was noted."""
        site.script(_GIVE_BACK, self._saved(site))

    def _saved(self, site: Site) -> Path:
        return site.stack.shelter / f"modes-{self.name}"


WRITING = 'dir=$(mktemp -d -p "$1") && rmdir "$dir"'
READING = 'find "$1" -type f -exec head -c 1 {} + >/dev/null'


class RepositoryReadOnly(Rights):
    """Everything can be read, so info and verify are content."""

    name = "repository-read-only"
    title = "The repository's directories are not writable: nothing new gets in"
    tags = ("permissions", "repository")
    change = 'find "$1" -type d -exec chmod a-w {} +'
    attempt = WRITING
    stacks = frozenset({"local", "compose"})
    expected = Expected(signal="repository", reason=r"no right to write or to read \S+/archive/", within=20)

    def path(self, site: Site) -> Path:
        """Return the repository."""
        return site.stack.places.repository


class RepositoryUnreadable(Rights):
    """Not even root's mistake: a chmod on the wrong directory."""

    name = "repository-unreadable"
    title = "The repository's directory has mode 000"
    tags = ("permissions", "repository")
    change = 'chmod 000 "$1"'
    attempt = READING
    stacks = frozenset({"local", "compose"})
    expected = Expected(signal="repository", reason=r"unable to .*\[13\] Permission denied")

    def path(self, site: Site) -> Path:
        """Return the repository."""
        return site.stack.places.repository


class RepositoryOwnedByRoot(Rights):
    """As after a copy, or a restore of the repository itself, by root."""

    name = "repository-owned-by-root"
    title = "The whole repository belongs to root"
    tags = ("permissions", "repository")
    change = 'chown -R root:root "$1"; chmod -R go-w,o-rwx "$1"'
    attempt = READING
    stacks = frozenset({"local", "compose"})
    expected = Expected(signal="repository", reason=r"unable to .*\[13\] Permission denied")
    needs_root = True

    def path(self, site: Site) -> Path:
        """Return the repository."""
        return site.stack.places.repository


class RepositoryFileOwnedByRoot(Rights):
    """What is left when root has run pgbackrest expire once: from 2.59 on it refuses root."""

    name = "repository-file-owned-by-root"
    title = "Root let backups expire once: the list of backups belongs to root"
    tags = ("permissions", "repository")
    change = 'chown root:root "$1"/backup.info "$1"/backup.info.copy; chmod 640 "$1"/backup.info "$1"/backup.info.copy'
    attempt = 'head -c 1 "$1/backup.info"'
    expected = Expected(signal="repository", reason=r"backup\.info.* \[13\] Permission denied")
    needs_root = True

    def path(self, site: Site) -> Path:
        """Return the directory of backups."""
        return site.stack.places.repository / "backup" / site.stack.stanza


class BackupOwnedByRoot(Rights):
    """What is left when root has taken a backup once."""

    name = "backup-owned-by-root"
    title = "Root took the newest backup: nobody else can restore it, nor let it expire"
    tags = ("permissions", "repository")
    change = 'chown -R root:root "$1"; chmod -R go-w,o-rwx "$1"'
    attempt = READING
    expected = Expected(signal="repository", reason=r"no right to write or to read \S+/backup/\S+/\d{8}-\d{6}F")
    silent = True
    needs_root = True

    def path(self, site: Site) -> Path:
        """Return the newest backup's directory."""
        return site.stack.places.repository / "backup" / site.stack.stanza / site.backups()[-1].label


class ArchiveDirectoryReadOnly(Rights):
    """Archived WAL is in directories of 256 segments each: pgBackRest makes a new one now and then, in this one."""

    name = "archive-directory-read-only"
    title = "The directory of archived WAL is not writable; backups' directories are"
    tags = ("permissions", "archiving")
    change = 'find "$1" -type d -exec chmod a-w {} +'
    attempt = WRITING
    expected = Expected(signal="repository", reason=r"no right to write or to read \S+/archive/", within=20)

    def path(self, site: Site) -> Path:
        """Return the present cluster's."""
        places = site.stack.places
        return places.repository / "archive" / site.stack.stanza


class SpoolReadOnly(Rights):
    """Asynchronous pushing cannot note its results."""

    name = "spool-read-only"
    title = "The spool's directories are not writable: WAL cannot be pushed in the background"
    tags = ("permissions", "archiving")
    change = 'find "$1" -type d -exec chmod a-w {} +'
    attempt = WRITING
    stacks = frozenset({"local", "compose"})
    expected = Expected(signal="repository", reason=r"no right to write or to read \S+/spool\S*/archive/", within=20)

    def path(self, site: Site) -> Path:
        """Return the spool."""
        return site.stack.places.spool


class SpoolUnreadable(Rights):
    """What is in it cannot even be looked for."""

    name = "spool-unreadable"
    title = "The spool's directory has mode 000"
    tags = ("permissions", "archiving")
    change = 'chmod 000 "$1"'
    attempt = 'ls "$1"'
    expected = Expected(signal="repository", reason=r"no right to write or to read \S+/spool\S*/archive/", within=20)

    def path(self, site: Site) -> Path:
        """Return the spool."""
        return site.stack.places.spool


class LockDirectoryReadOnly(Rights):
    """Every command that changes something takes a lock first."""

    name = "lock-directory-read-only"
    title = "The directory of pgBackRest's locks is not writable: neither backups nor archiving begin"
    tags = ("permissions", "archiving")
    change = 'find "$1" -type f -delete; chmod a-w "$1"'
    attempt = WRITING
    stacks = frozenset({"local", "compose"})
    expected = Expected(signal="repository", reason=r"no right to write or to read \S+/lock\b", within=20)

    def path(self, site: Site) -> Path:
        """Return the directory of locks."""
        return site.stack.places.lock


class ConfigurationUnreadable(Rights):
    """As after an edit by root with a strict umask."""

    name = "configuration-unreadable"
    title = "pgbackrest.conf cannot be read: no command of pgBackRest works"
    tags = ("permissions", "configuration")
    change = 'chmod 000 "$1"'
    attempt = READING
    stacks = frozenset({"local", "compose"})
    expected = Expected(signal="repository", reason=r"\[041\] .*pgbackrest\.conf")

    def path(self, site: Site) -> Path:
        """Return the file."""
        return site.stack.places.configuration / "pgbackrest.conf"


class StateDirectoryReadOnly(Rights):
    """The check worker goes on, and nobody learns what it finds: only its health check can tell."""

    name = "state-directory-read-only"
    title = "The state directory is not writable: workers and checks cannot report"
    tags = ("permissions", "workers")
    change = 'chmod a-w "$1"'
    attempt = WRITING
    expected = Expected(signal="check-worker", reason=r"no heartbeat for \d+ s", within=20)
    silent = True

    def path(self, site: Site) -> Path:
        """Return the directory of the workers' records and the checks' report."""
        return site.stack.places.state


FAULTS: tuple[type[Fault], ...] = (
    RepositoryReadOnly,
    RepositoryUnreadable,
    RepositoryOwnedByRoot,
    RepositoryFileOwnedByRoot,
    BackupOwnedByRoot,
    ArchiveDirectoryReadOnly,
    SpoolReadOnly,
    SpoolUnreadable,
    LockDirectoryReadOnly,
    ConfigurationUnreadable,
    StateDirectoryReadOnly,
)
