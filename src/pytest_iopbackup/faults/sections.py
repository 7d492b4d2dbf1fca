"""Sections of pgBackRest's configuration for one command only: whoever looks at another command does not see them."""

from __future__ import annotations

from typing import ClassVar

from pytest_iopbackup.errors import ProofError
from pytest_iopbackup.faults.base import Expected, Fault
from pytest_iopbackup.faults.configuration import file
from pytest_iopbackup.faults.site import Site


class Section(Fault):
    """A section for one command is added at the end; the next such command reads it."""

    tags = ("configuration", "sections")
    silent = True
    command: ClassVar[str]
    lines: ClassVar[tuple[str, ...]]

    def inject(self, site: Site) -> None:
        """Add it."""
        section = "\n".join((f"[global:{self.command}]", *self.values(site)))
        site.edit(file(site), lambda text: f"{text}\n{section}\n")

    def values(self, site: Site) -> tuple[str, ...]:  # noqa: ARG002 - for those that depend on it
        """Return its lines."""
        return self.lines

    def prove(self, site: Site) -> str:
        """Ask the command what it finds."""
        found = site.run("pgbackrest", "help", self.command).stdout
        value = self.values(site)[0].rpartition("=")[2]
        if f"={value}" not in found:
            raise ProofError(f"pgbackrest {self.command} does not see {value}")
        return f"pgbackrest {self.command} sees {self.values(site)[0]}"

    def heal(self, site: Site) -> None:
        """Put the file back."""
        site.put_back(file(site))


class ExpireKeepsLess(Section):
    """backup.sh runs expire by itself, after each backup."""

    name = "expire-keeps-less"
    title = "The section of expire keeps one full backup, where all other commands are told of two"
    command = "expire"
    lines = ("repo1-retention-full=1", "repo1-retention-archive=1")
    expected = Expected(
        signal="configuration", reason=r"repo1-retention-full=1 \(count\) lets a restore reach 0 s back"
    )


class RestoreLeavesOut(Section):
    """The files of its tables are there, and full of zeros: it takes no connection."""

    name = "restore-leaves-database-out"
    title = "The section of restore leaves the application's database out: every restore is without it"
    command = "restore"
    expected = Expected(signal="configuration", reason=r"db-exclude is set: no restore is whole")

    def values(self, site: Site) -> tuple[str, ...]:
        """Name the database that everybody connects to."""
        return (f"db-exclude={site.sql('SELECT current_database()')[0][0]}",)


class RestoreStopsEarly(Section):
    """It was meant for one restore."""

    name = "restore-stops-early"
    title = "The section of restore sets a recovery target: a restore to the latest moment ends with the backup"
    command = "restore"
    lines = ("recovery-option=recovery_target=immediate", "recovery-option=recovery_target_action=promote")
    expected = Expected(signal="configuration", reason=r"recovery-option sets recovery_target, recovery_target_action")


FAULTS: tuple[type[Fault], ...] = (
    ExpireKeepsLess,
    RestoreLeavesOut,
    RestoreStopsEarly,
)
