"""What only the next backup shows: a database of another size, a hole in WAL that it leaves behind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from pytest_iopbackup.errors import ProofError
from pytest_iopbackup.faults.base import Expected, Fault
from pytest_iopbackup.faults.common import expire_since, labels
from pytest_iopbackup.faults.missing import WalDeleted
from pytest_iopbackup.faults.site import Site
from pytest_iopbackup.faults.workers import backup_script
from pytest_iopbackup.stack.base import Service


def back_up(site: Site, kind: str) -> None:
    """Take a backup as the worker does."""
    site.run("bash", str(backup_script(site)), kind, service=Service.BACKUP)


class DatabaseGrown(Fault):
    """Or it is another database, or half of it was dropped: whoever knows it has to say."""

    name = "database-grown"
    title = "The database has grown to several times its size since the backup before"
    tags = ("postgresql", "backups")
    silent = True
    variables: ClassVar = {"IOP_SIZE_CHANGE": "2"}
    expected = Expected(signal="backups", reason=r"the database in backup \S+ is \d+ bytes, in those before it \d+")
    before: list[str] | None = None

    def inject(self, site: Site) -> None:
        """Add twice what there is, and take a backup."""
        self.before = labels(site)
        # Rows that are just too short for PostgreSQL to compress them: four to a page.
        rows = "SELECT (sum(pg_database_size(oid)) * 2 / 2048)::int FROM pg_database"
        site.sql(f"CREATE TABLE ballast AS SELECT repeat('x', 1900) FROM generate_series(1, ({rows}))")
        back_up(site, "diff")

    def prove(self, site: Site) -> str:
        """Measure it, and see that there is a backup of it."""
        share = site.sql("SELECT pg_table_size('ballast') / sum(pg_database_size(oid)) FROM pg_database")[0][0]
        if share < 0.5 or len(labels(site)) == len(self.before or ()):
            raise ProofError(f"{share:.0%} of the database are new; backups: {labels(site)}")
        return f"{share:.0%} of the database are new, and in backup {labels(site)[-1]}"

    def heal(self, site: Site) -> None:
        """Drop it, and let go of the backups that have it."""
        site.sql("DROP TABLE IF EXISTS ballast")
        expire_since(site, self.before)


class WalDeletedBeforeFull(WalDeleted):
    """Restores from the newest backup are as good as ever; those to moments before it are not."""

    name = "wal-deleted-before-full"
    title = "A WAL segment before the newest full backup was deleted: some earlier moments cannot be restored"
    expected = Expected(
        signal="wal-chain", reason=r"WAL is missing .*; the full backup from 0\w+ on is not affected", within=20
    )

    def victims(self, site: Site) -> Sequence[Path]:
        """Return one that has successors, the next full backup's among them."""
        gone = super().victims(site)
        back_up(site, "full")
        return gone


FAULTS: tuple[type[Fault], ...] = (
    DatabaseGrown,
    WalDeletedBeforeFull,
)
