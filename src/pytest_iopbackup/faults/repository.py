"""The repository as a whole: gone, empty, another one, an older one, hanging."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from pytest_iopbackup.cluster.checks import read_status
from pytest_iopbackup.errors import DeadlineError, ProofError
from pytest_iopbackup.faults.base import Expected, Fault
from pytest_iopbackup.faults.missing import Gone
from pytest_iopbackup.faults.put_back import put_back_with_wal
from pytest_iopbackup.faults.site import Site
from pytest_iopbackup.limits import wait_until
from pytest_iopbackup.stack.base import CommandResult, Service


class RepositoryMoved(Gone):
    """As by an operator who tidies up, or by a link that points elsewhere."""

    name = "repository-moved"
    title = "The repository has been renamed away: nothing is at its path"
    tags = ("repository", "repository-unreachable")
    stacks = frozenset({"local", "compose"})
    expected = Expected(signal="repository", reason=r"missing stanza path")

    def victims(self, site: Site) -> Sequence[Path]:
        """Return the repository; or what is in it, where it is a volume, which nobody can rename."""
        repository = site.stack.places.repository
        return (repository,) if site.stack.kind == "local" else (repository / "archive", repository / "backup")

    def heal(self, site: Site) -> None:
        """Move it back, with WAL that came meanwhile."""
        repository = site.stack.places.repository
        if site.stack.kind == "local":
            put_back_with_wal(site, repository, "archive")
        else:
            put_back_with_wal(site, repository / "archive", ".")
            site.put_back(repository / "backup")


class RepositoryEmpty(RepositoryMoved):
    """What a volume that is not mounted leaves: its mount point."""

    name = "repository-empty"
    title = "An empty directory is in the repository's place, as after a volume was not mounted"
    stacks = frozenset({"local"})

    def inject(self, site: Site) -> None:
        """Move the repository away, and make an empty directory."""
        super().inject(site)
        site.run("mkdir", "-p", "-m", "750", str(site.stack.places.repository))


class Replaced(Fault):
    """Another repository is in the repository's place. WAL that it was given meanwhile is moved over in the end."""

    tags = ("repository", "repository-identity")
    silent = True

    @abstractmethod
    def fill(self, site: Site) -> None:
        """Make the other repository, in an empty directory."""

    def inject(self, site: Site) -> None:
        """Put an empty directory in its place, and fill it."""
        path = site.stack.places.repository
        site.take_away(path)
        site.run("mkdir", "-p", "-m", "750", str(path))
        self.fill(site)

    def heal(self, site: Site) -> None:
        """Put the right one back, with the WAL that was archived into the other one."""
        put_back_with_wal(site, site.stack.places.repository, "archive")

    def prove(self, site: Site) -> str:
        """Compare the backups of both."""
        repository = site.stack.places.repository
        here, before = _labels(site, repository), _labels(site, site.saved(repository))
        if not here or here & before == before:
            raise ProofError(f"the repository has {_and(here)}, as before")
        return f"the repository had {_and(before)}, now {_and(here)}"


class RepositoryRecreated(Replaced):
    """What a container's start script does that makes a repository wherever it finds none."""

    name = "repository-recreated"
    title = "The repository was made anew on an empty volume, with a full backup: all history is gone"
    expected = Expected(signal="repository", reason=r"not the repository that was here: it has never had backup \d")

    def fill(self, site: Site) -> None:
        """Create the stanza, and take a backup."""
        _begin(site)


class RepositorySwapped(Replaced):
    """The volume that this cluster was backed up to before the present one."""

    name = "repository-swapped"
    title = "The volume of an earlier repository of the same cluster is mounted: valid, but with a hole until now"
    expected = Expected(signal="repository", reason=r"not the repository that was here: it has never had backup \d")

    def fill(self, site: Site) -> None:
        """Make it, let it go without some WAL, and bring it back."""
        repository = site.stack.places.repository
        _begin(site)
        missed = site.await_archived(site.switch_wal())
        site.await_archived(site.switch_wal())
        site.script('mv "$1" "$2"', missed, site.saved(repository) / missed.relative_to(repository))


class RepositoryOfAnotherCluster(Replaced):
    """Two stacks, and their volumes mixed up."""

    name = "repository-of-another-cluster"
    title = "The repository of another cluster, with the same stanza, is mounted"
    silent = False
    expected = Expected(signal="repository", reason=r"not the repository that was here: it has never had backup \d")

    def fill(self, site: Site) -> None:
        """Make a cluster, and back it up as it lies there."""
        data = site.stack.places.state / "another"
        site.run("initdb", "--no-sync", "--pgdata", str(data), "--username=postgres", "--auth=trust")
        offline = ("--no-online", f"--pg1-path={data}")
        site.run("pgbackrest", *offline, "stanza-create", service=Service.BACKUP)
        site.run("pgbackrest", *offline, "--type=full", "backup", service=Service.BACKUP)

    def heal(self, site: Site) -> None:
        """Put the right one back; the other cluster never ran, so that WAL in the other one would be ours."""
        super().heal(site)
        site.script('rm -rf "$1"', site.stack.places.state / "another")


class RepositoryRolledBack(Replaced):
    """A snapshot of the storage was restored, or a replica of it mounted."""

    name = "repository-rolled-back"
    title = "The repository is as it was before the last backup, as from a snapshot of the storage"
    expected = Expected(signal="repository", reason=r"not the repository that was here: it has never had backup \d")

    def inject(self, site: Site) -> None:
        """Copy it, take another backup that a check sees, and let the copy take its place."""
        repository = site.stack.places.repository
        older = repository.with_name(f"{repository.name}.older")
        site.script('rm -rf "$2"; cp -a "$1" "$2"', repository, older)
        site.run("bash", str(site.stack.places.configuration / "backup.sh"), "diff", service=Service.BACKUP)
        newest = site.backups()[-1].label
        wait_until(lambda: _seen(site, newest), limit=site.limits.check, what=f"the checks to see backup {newest}")
        site.take_away(repository)
        site.script('mv -T "$1" "$2"', older, repository)

    def fill(self, site: Site) -> None:
        """Nothing: the copy is it."""

    def heal(self, site: Site) -> None:
        """Also remove the copy, if it is still one."""
        super().heal(site)
        repository = site.stack.places.repository
        site.script('rm -rf "$1"', repository.with_name(f"{repository.name}.older"))


class RepositoryHangs(Fault):
    """What a dead mount does: whoever opens a file waits for ever."""

    name = "repository-hangs"
    title = "The repository hangs: whoever opens archive.info waits for ever"
    tags = ("repository", "repository-unreachable")
    stacks = frozenset({"local", "compose"})
    # The cycle under way and the next one each wait for an answer and for pgbackrest check: 3 + 5 s.
    variables: ClassVar[Mapping[str, str]] = {"IOP_PROBE_TIMEOUT": "3", "IOP_ARCHIVE_CHECK_TIMEOUT": "5"}
    expected = Expected(signal="repository", reason=r"no answer from pgbackrest info within 3 s", within=25)

    def inject(self, site: Site) -> None:
        """Put pipes that nobody writes to in the place of archive.info and its copy."""
        for path in _archive_infos(site):
            site.take_away(path)
            site.run("mkfifo", str(path))

    def prove(self, site: Site) -> str:
        """Try to read it."""
        path = _archive_infos(site)[0]
        ended = site.run("timeout", "0.3", "cat", str(path), check=False).exit_code
        if ended != 124:
            raise ProofError(f"{path} can be read: exit code {ended}")
        return f"{path}: no answer to a read within 0.3 s"

    def heal(self, site: Site) -> None:
        """Put the files back, then let go whoever waits: opened for both ways, a pipe never blocks."""
        for path in _archive_infos(site):
            pipe = path.with_name(f"{path.name}.pipe")
            site.script('[ ! -p "$1" ] || mv "$1" "$2"', path, pipe)
            site.put_back(path)
            site.script('[ ! -p "$1" ] || { exec 3<>"$1"; exec 3>&-; rm "$1"; }', pipe)


def _begin(site: Site) -> None:
    ended: CommandResult | None = None

    def created() -> bool:  # archiving that fails in the background holds the lock for moments
        nonlocal ended
        ended = site.run("pgbackrest", "stanza-create", service=Service.BACKUP, check=False)
        return ended.exit_code == 0

    try:
        wait_until(created, limit=site.limits.command, what="the stanza to be created")
    except DeadlineError as error:
        raise ProofError(f"{error.message}: {ended.describe() if ended else 'it was never tried'}") from error
    site.run("bash", str(site.stack.places.configuration / "backup.sh"), "full", service=Service.BACKUP)


def _archive_infos(site: Site) -> list[Path]:
    directory = site.stack.places.repository / "archive" / site.stack.stanza
    return [directory / name for name in ("archive.info", "archive.info.copy")]


def _labels(site: Site, repository: Path) -> set[str]:
    directory = repository / "backup" / site.stack.stanza
    return set(site.script('cd "$1" && ls -d [0-9]*', directory).split())


def _and(labels: set[str]) -> str:
    return " and ".join(sorted(labels)) or "no backup"


def _seen(site: Site, label: str) -> bool:
    status = read_status(site.stack)
    return status is not None and status.status == "ok" and any(label in check.seen for check in status.checks)


FAULTS: tuple[type[Fault], ...] = (
    RepositoryMoved,
    RepositoryEmpty,
    RepositoryRecreated,
    RepositorySwapped,
    RepositoryOfAnotherCluster,
    RepositoryRolledBack,
    RepositoryHangs,
)
