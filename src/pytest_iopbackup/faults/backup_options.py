"""Options that only backup.sh finds, as from variables of its own container: no other command is told of them."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from pytest_iopbackup.errors import ProofError
from pytest_iopbackup.faults.base import Expected, Fault
from pytest_iopbackup.faults.common import expire_since, labels
from pytest_iopbackup.faults.growth import back_up
from pytest_iopbackup.faults.site import Site
from pytest_iopbackup.faults.workers import backup_script, begin_script
from pytest_iopbackup.stack.base import Service


class BackupOption(Fault):
    """A variable is set where backup.sh runs, and a backup is taken with it."""

    tags = ("configuration", "variables")
    silent = True
    variable: ClassVar[str]
    before: list[str] | None = None

    @abstractmethod
    def value(self, site: Site) -> str:
        """Return the variable's value."""

    def inject(self, site: Site) -> None:
        """Set it, and take a backup."""
        self.before = labels(site)
        begin_script(site, f"export {self.variable}={self.value(site)}")
        back_up(site, "diff")

    def heal(self, site: Site) -> None:
        """Put the script back, and let go of what was taken with the variable."""
        site.put_back(backup_script(site))
        expire_since(site, self.before)


class BackupLeavesOut(BackupOption):
    """No configuration has it, and every command but the backup itself is without it."""

    name = "backup-leaves-table-out"
    title = "The backup worker's own environment excludes a table's file: backups succeed, and are without it"
    variable = "PGBACKREST_EXCLUDE"
    expected = Expected(signal="configuration", reason=r"last run of backup\.sh: exclude is set: backups are not whole")

    def value(self, site: Site) -> str:
        """Name the file of the first table."""
        tables = "SELECT pg_relation_filepath(oid) FROM pg_class WHERE relkind = 'r' AND oid >= 16384 ORDER BY oid"
        return str(site.sql(tables)[0][0])

    def prove(self, site: Site) -> str:
        """Look for it in the newest backup's manifest."""
        file, newest = f"pg_data/{self.value(site)}=", labels(site)[-1]
        manifest = f"backup/{site.stack.stanza}/{newest}/backup.manifest"
        found = site.run("pgbackrest", "repo-get", manifest, service=Service.BACKUP).stdout
        if newest in (self.before or ()) or f"\n{file}" in found or "\npg_data/PG_VERSION=" not in found:
            raise ProofError(f"backup {newest} has {file[:-1]}")
        return f"backup {newest} is without {file[:-1]}"


class BackupKeepsLess(BackupOption):
    """With the next full backup the one before is gone, and with it every moment before the new one."""

    name = "backup-keeps-less"
    title = "The backup worker's own environment keeps one full backup, where the configuration says two"
    variable = "PGBACKREST_REPO1_RETENTION_FULL"
    expected = Expected(
        signal="configuration",
        reason=r"last run of backup\.sh: repo1-retention-full=1 \(count\) lets a restore reach 0 s back",
    )

    def value(self, site: Site) -> str:  # noqa: ARG002 - whatever the stack is
        """Keep one."""
        return "1"

    def prove(self, site: Site) -> str:
        """See that a backup was taken with it."""
        newest, line = labels(site)[-1], f"export {self.variable}=1"
        if newest in (self.before or ()) or line not in site.script('cat "$1"', backup_script(site)):
            raise ProofError(f"the newest backup is {newest}")
        return f"backup.sh begins with {line}, and has taken backup {newest}"


FAULTS: tuple[type[Fault], ...] = (
    BackupLeavesOut,
    BackupKeepsLess,
)
