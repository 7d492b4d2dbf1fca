"""PostgreSQL's archive_command: WAL that does not reach the repository, or only seems to."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pytest_iopbackup.errors import ProofError
from pytest_iopbackup.faults import processes
from pytest_iopbackup.faults.base import Expected, Fault
from pytest_iopbackup.faults.common import await_acknowledged, create_stanza, merge_archives
from pytest_iopbackup.faults.site import Site


class ArchiveCommand(Fault):
    """archive_command does something else than push WAL to the repository."""

    tags = ("archiving", "archive-command")
    stacks = frozenset({"local", "compose"})
    command: ClassVar[str]

    def inject(self, site: Site) -> None:
        """Set it; a reload is enough."""
        site.set("archive_command", self.command)

    def prove(self, site: Site) -> str:
        """Read the running setting."""
        found = site.setting("archive_command")
        if found != self.command and not (self.command == "" and found in {"", "(disabled)"}):
            raise ProofError(f"archive_command is {found!r}")
        return f"archive_command is {found!r}"

    def heal(self, site: Site) -> None:
        """Go back to what postgresql.conf says."""
        site.set("archive_command", None)


class ArchiveCommandTrue(ArchiveCommand):
    """WAL is acknowledged and recycled, and stored nowhere."""

    name = "archive-command-true"
    title = "archive_command is /bin/true: WAL counts as archived and is stored nowhere"
    command = "/bin/true"
    expected = Expected(signal="configuration", reason=r"critical: .*archive_command is '/bin/true'")
    loses_window = True


class ArchiveCommandFalse(ArchiveCommand):
    """Every attempt fails."""

    name = "archive-command-false"
    title = "archive_command is /bin/false: every attempt fails, WAL piles up"
    command = "/bin/false"
    expected = Expected(signal="wal-archiving", reason=r"archive_command|068")


class ArchiveCommandEmpty(ArchiveCommand):
    """The archiver waits for a command."""

    name = "archive-command-empty"
    title = "archive_command is empty: nothing is archived, and nothing counts as failed"
    command = ""
    expected = Expected(signal="wal-archiving", reason=r"archive_command|068")


class ArchiveBinaryMissing(ArchiveCommand):
    """The shell's exit code 127 ends the archiver, which PostgreSQL starts anew without counting a failure."""

    name = "archive-binary-missing"
    title = "archive_command names a pgbackrest that is not there"
    command = '/nope/pgbackrest --stanza="${PGBACKREST_STANZA:-iop}" archive-push "%p"'
    expected = Expected(signal="archiver", reason=r"no archiver process runs", within=25)


class ArchiveHangs(ArchiveCommand):
    """The archiver waits for the command's end."""

    name = "archive-hangs"
    title = "archive_command hangs before pgBackRest is called"
    command = 'sleep 3600; pgbackrest --stanza="${PGBACKREST_STANZA:-iop}" archive-push "%p"'
    variables: ClassVar = {"IOP_READY_AGE": "3"}
    expected = Expected(
        signal="archiver", reason=r"WAL has been waiting for \d+ s, and none was archived meanwhile", within=20
    )

    def heal(self, site: Site) -> None:
        """Go back, and end what sleeps: the archiver waits for it."""
        super().heal(site)
        for shell in processes.children(site, processes.backend(site, "archiver")):
            processes.send(site, "TERM", *processes.children(site, shell, "sleep"))


class ArchiveWrongStanza(ArchiveCommand):
    """Pushed for a stanza that the repository does not know."""

    name = "archive-wrong-stanza"
    title = "archive_command pushes to a stanza that does not exist"
    command = 'pgbackrest --stanza=nobody archive-push "%p"'
    expected = Expected(signal="wal-archiving", reason=r"082")


class ArchiveAcknowledgedLate(ArchiveCommand):
    """WAL is stored, but PostgreSQL keeps it for ever."""

    name = "archive-never-acknowledged"
    title = "archive_command stores WAL and fails all the same: PostgreSQL keeps every segment"
    command = 'pgbackrest --stanza="${PGBACKREST_STANZA:-iop}" archive-push "%p"; false'
    expected = Expected(signal="archiver", reason=r"archiving \w+ failed, and no success since")


class ArchiveExitCodeLost(ArchiveCommand):
    """All goes well until a push fails: PostgreSQL is told that it did not, and WAL is lost."""

    name = "archive-exit-code-lost"
    title = "archive_command hides pgBackRest's exit code: a push that fails will count as a success"
    command = 'pgbackrest --stanza="${PGBACKREST_STANZA:-iop}" archive-push "%p"; true'
    silent = True
    expected = Expected(signal="configuration", reason=r"warning: .*archive_command is '.*; true'")


class ArchiveElsewhere(ArchiveCommand):
    """A second repository takes the WAL; backups go to the first one."""

    name = "archive-elsewhere"
    title = "archive_command pushes to another repository than the one that backups go to"
    stacks = frozenset({"local"})
    expected = Expected(signal="configuration", reason=r"its repo1-path is \S+, backups use")

    def inject(self, site: Site) -> None:
        """Make the other repository, which works, and push there."""
        other = f"--repo1-path={_elsewhere(site)}"
        create_stanza(site, _elsewhere(site))
        site.set("archive_command", f'pgbackrest --stanza="${{PGBACKREST_STANZA:-iop}}" {other} archive-push "%p"')
        site.switch_wal()

    def prove(self, site: Site) -> str:
        """See WAL arrive there."""
        found = site.files(_elsewhere(site), "0*-*")
        if not found:
            raise ProofError("nothing has been archived elsewhere yet")
        return f"{found[-1]} is there"

    def heal(self, site: Site) -> None:
        """Push where it belongs again, and bring what went astray."""
        super().heal(site)
        await_acknowledged(site, site.switch_wal())
        merge_archives(site, _elsewhere(site))


def _elsewhere(site: Site) -> Path:
    return site.stack.places.repository.with_name("elsewhere")


FAULTS: tuple[type[Fault], ...] = (
    ArchiveCommandTrue,
    ArchiveCommandFalse,
    ArchiveCommandEmpty,
    ArchiveBinaryMissing,
    ArchiveHangs,
    ArchiveWrongStanza,
    ArchiveAcknowledgedLate,
    ArchiveExitCodeLost,
    ArchiveElsewhere,
)
