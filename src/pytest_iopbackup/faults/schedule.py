"""Backups that nobody takes, though no worker complains: only their age tells."""

from __future__ import annotations

import time
from pathlib import Path
from typing import ClassVar

from pytest_iopbackup.errors import ProofError
from pytest_iopbackup.faults.base import Expected, Fault
from pytest_iopbackup.faults.common import create_stanza, merge_archives
from pytest_iopbackup.faults.site import Site
from pytest_iopbackup.faults.workers import await_idle, backup_script, begin_script, record
from pytest_iopbackup.stack.base import Service


class Schedule(Fault):
    """A worker that lives and whose every run succeeds, and that does not do its work: backup.sh was changed."""

    tags = ("workers", "schedule")
    silent = True
    line: ClassVar[str]
    """What backup.sh now begins with."""
    paced: ClassVar[dict[str, str]]
    """Variables by which what is missing becomes overdue in seconds."""

    def inject(self, site: Site) -> None:
        """Change the script, then let time run fast."""
        self.newest = site.backups()[-1].label
        begin_script(site, self.line)
        site.configure(**self.paced)

    def heal(self, site: Site) -> None:
        """Put the script and the pace back."""
        site.put_back(backup_script(site))
        if hasattr(self, "newest"):
            site.configure(**dict.fromkeys(self.paced))
        await_idle(site)


class BackupOverdue(Schedule):
    """Left over from a maintenance window. Every run of the worker is a success."""

    name = "backup-overdue"
    title = "backup.sh does nothing, with success: the newest backup grows old"
    line = "exit 0 # maintenance"
    paced: ClassVar = {"DATABASE_BACKUP_FREQUENCY": "1", "DATABASE_BACKUP_LIMIT": "2"}
    expected = Expected(signal="backups", reason=r"the last backup \S+ is \d+ s old, more than 3")

    def prove(self, site: Site) -> str:
        """See that runs succeed without a backup."""
        found, newest = record(site, Service.BACKUP), site.backups()[-1]
        if newest.label != self.newest or not (found["last"] or {}).get("exit_code") == 0 or found["frequency"] != 1:
            raise ProofError(f"the newest backup is {newest.label}, the last run {found['last']}")
        return f"{found['runs']} runs, the last with exit code 0, and the newest backup is still {newest.label}"


class FullNeverCompletes(Schedule):
    """Each differential one needs the full one, and all WAL since."""

    name = "full-never-completes"
    title = "Only differential backups are taken: the last full one grows old"
    line = "set -- diff"
    paced: ClassVar = {
        "DATABASE_BACKUP_FREQUENCY": "2",
        "DATABASE_BACKUP_LIMIT": "3",
        "IOP_FULL_BACKUP_AGE": "1",
    }
    expected = Expected(signal="backups", reason=r"the last full backup \S+ is \d+ s old, more than 6")

    def prove(self, site: Site) -> str:
        """See newer backups, none of them full, and how old that is."""
        found = site.backups()
        full = max(backup.stopped for backup in found if backup.type == "full")
        if found[-1].label == self.newest or found[-1].type != "diff" or time.time() - full.timestamp() < 6:
            raise ProofError(f"the newest backup is {found[-1].label}, the last full one ended at {full}")
        return f"the newest backup is {found[-1].label}, the last full one ended at {full}"


class NeverBackedUp(Fault):
    """All that pgBackRest looks at is archiving, and that works."""

    name = "never-backed-up"
    title = "WAL is archived to a repository that has never seen a backup, and no backup worker runs"
    tags = ("workers", "backup")
    silent = True
    expected = Expected(signal="backups", reason=r"no valid backups \(status 2\)")

    def inject(self, site: Site) -> None:
        """Begin with an empty repository, a stanza and a state directory that knows nothing."""
        repository, aside = site.stack.places.repository, _aside(site)
        site.stack.stop(Service.CHECK)
        site.stack.stop(Service.BACKUP)
        site.script('mkdir -p "$2" && mv -T "$1" "$2/repo" && mkdir -m 700 "$1" && chown --reference="$2/repo" "$1"',
                    repository, aside)  # fmt: skip
        site.script('mkdir "$2/state" && cd "$1" && find . -maxdepth 1 -name "remembered-*" -exec mv -t "$2/state" {} +'
                    ' && mv backup.json "$2/state"', site.stack.places.state, aside)  # fmt: skip
        create_stanza(site, repository)
        site.stack.start(Service.CHECK)

    def prove(self, site: Site) -> str:
        """See WAL arrive, and no backup."""
        site.await_archived(site.switch_wal())
        if site.backups():
            raise ProofError("the repository has a backup")
        return f"{len(site.files(site.archive(), '0*-*'))} segments are archived; there is no backup"

    def heal(self, site: Site) -> None:
        """Put the repository back, with the WAL that went to the new one, and what was known of it."""
        repository, aside = site.stack.places.repository, _aside(site)
        site.stack.stop(Service.CHECK)
        if site.exists(aside / "repo"):
            site.script('mv -T "$1" "$2/new" && mv -T "$2/repo" "$1"', repository, aside)
        if site.exists(aside / "new"):
            merge_archives(site, aside / "new")
        if site.exists(aside / "state"):
            site.script('rm -f "$1"/remembered-* && cd "$2/state" && find . -type f -exec mv -t "$1" {} +',
                        site.stack.places.state, aside)  # fmt: skip
        site.surgery("rm", "-rf", str(aside))
        for service in (Service.BACKUP, Service.CHECK):
            if not site.stack.running(service):
                site.stack.start(service)


def _aside(site: Site) -> Path:
    return site.stack.places.repository.with_name("aside")


FAULTS: tuple[type[Fault], ...] = (
    FullNeverCompletes,
    BackupOverdue,
    NeverBackedUp,
)
