"""Backups that are there and wrong, what describes them, and pages of the database itself."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from pytest_iopbackup.cluster.pgbackrest import json_in
from pytest_iopbackup.errors import ProofError
from pytest_iopbackup.faults.base import Expected, Fault
from pytest_iopbackup.faults.corruption import FLIP, Damaged, Flipped, Truncated, compare
from pytest_iopbackup.faults.missing import backup_directory
from pytest_iopbackup.faults.site import Site
from pytest_iopbackup.limits import wait_until
from pytest_iopbackup.stack.base import Service

_ONCE = {"PGBACKREST_JOB_RETRY": "0"}
"""A restore that meets damage need not try again 15 s later."""
_EAGER = {**_ONCE, "IOP_VERIFY_FREQUENCY": "1"}
"""For what only a look at the content can find: ``pgbackrest verify`` all the time."""


class BackupFile(Damaged):
    """What the newest backup holds itself: a bundle of small files."""

    tags = ("corruption", "backup-files")
    silent = True
    variables: ClassVar[Mapping[str, str]] = _ONCE

    def victims(self, site: Site) -> Sequence[Path]:
        """Return its largest file."""
        directory = backup_directory(site, -1)
        largest = site.script('find "$1" -type f ! -name "backup.manifest*" -printf "%s %p\\n" | sort -n', directory)
        return (Path(largest.splitlines()[-1].split(maxsplit=1)[1]),)


class BackupFileBitflip(Flipped, BackupFile):
    """A restore fails, or ends with damaged pages."""

    name = "backup-file-bitflip"
    title = "A byte of a file of the newest backup is wrong, with size and time as before: it cannot be restored"
    expected = Expected(signal="verify", reason=r"verify finds damage: .*\d{8}-\d{6}F_\d{8}-\d{6}D")
    variables = _EAGER


class BackupFileTruncated(Truncated, BackupFile):
    """As above."""

    name = "backup-file-truncated"
    title = "A file of the newest backup is cut off in the middle: it cannot be restored"
    expected = Expected(signal="backups", reason=r"backup \S+D has \d+ bytes of files, not \d+")


class BackupFileDeleted(BackupFile):
    """As above."""

    name = "backup-file-deleted"
    title = "A file of the newest backup is gone: it cannot be restored"
    expected = Expected(signal="backups", reason=r"backup \S+D has \d+ bytes of files, not \d+")

    def inject(self, site: Site) -> None:
        """Move it away."""
        self._files = self.victims(site)
        for path in self._files:
            site.take_away(path)

    def damage(self, site: Site, path: Path) -> None:
        """Nothing is to be changed."""

    def prove(self, site: Site) -> str:
        """Look for it."""
        there = [str(path) for path in self._files if site.exists(path)]
        if there or not self._files:
            raise ProofError(f"still there: {there}")
        return f"not there: {', '.join(map(str, self._files))}"


class BundleInherited(Damaged):
    """pgBackRest from 2.47 on calls the backup valid that refers to it (its verify looks for the wrong name)."""

    name = "bundle-inherited"
    title = "A byte is wrong in a bundle of the full backup, where only the differential one still refers to a file"
    tags = ("corruption", "backup-files")
    silent = True
    expected = Expected(signal="verify", reason=r"verify finds damage: .*\d{8}-\d{6}F\b.*\d{8}-\d{6}F_\d{8}-\d{6}D")
    variables = _EAGER

    def victims(self, site: Site) -> Sequence[Path]:
        """Return the bundle, and note the place in it of the largest file that the differential backup refers to."""
        full, diff = (backup.label for backup in site.backups()[-2:])
        manifest = site.run("pgbackrest", "repo-get", f"backup/{site.stack.stanza}/{diff}/backup.manifest").stdout
        found = re.findall(r'^pg_data/\S+?=(\{.*"bni":.*\})$', manifest, re.MULTILINE)
        entries = [entry for entry in map(json.loads, found) if entry.get("reference", entry.get("rf")) is not None]
        largest = max(entries, key=lambda entry: int(entry["size"]))
        self._offset = int(largest.get("bno", 0)) + 16
        return (backup_directory(site, -2).with_name(full) / "bundle" / str(largest["bni"]),)

    def damage(self, site: Site, path: Path) -> None:
        """Turn over a byte there."""
        site.script(FLIP, path, str(self._offset))


class Described(Flipped):
    """Files in which pgBackRest describes what there is, each with a checksum of itself inside."""

    tags = ("corruption", "repository-damaged")
    places: ClassVar[Sequence[str]]
    """Below the repository; ``{}`` is the stanza."""

    def victims(self, site: Site) -> Sequence[Path]:
        """Return them."""
        return [site.stack.places.repository / place.format(site.stack.stanza) for place in self.places]


class ManifestCorrupt(Flipped):
    """The copy is not asked for; the backup cannot be restored.

    Where the byte is one of a label, pgBackRest's verify (2.45) dies of it: an assertion in ``strLstFindIdx``.
    """

    name = "manifest-corrupt"
    title = "A byte of the newest backup's manifest is wrong: it cannot be restored"
    tags = ("corruption", "repository-damaged")
    silent = True
    expected = Expected(
        signal="verify",
        reason=r"verify finds damage: .*\d{8}-\d{6}F_\d{8}-\d{6}D|unable to find '\S+' in string list",
    )
    variables = _EAGER

    def victims(self, site: Site) -> Sequence[Path]:
        """Return it and its copy."""
        return [backup_directory(site, -1) / name for name in ("backup.manifest", "backup.manifest.copy")]


class BackupInfoCorrupt(Described):
    """As if it were lost."""

    name = "backup-info-corrupt"
    title = "backup.info and its copy are damaged: no backup is known"
    places = ("backup/{}/backup.info", "backup/{}/backup.info.copy")
    expected = Expected(signal="repository", reason=r"\[\w+Error\] unable to load info file .*backup\.info")


class BackupInfoHalfCorrupt(Described):
    """The copy is used: until it is damaged, too."""

    name = "backup-info-half-corrupt"
    title = "backup.info is damaged, its copy is used: one more loss, and no backup is known"
    places = ("backup/{}/backup.info",)
    silent = True
    fleeting = True
    expected = Expected(signal="backups", reason=r"backup\.info and its copy differ")

    def inject(self, site: Site) -> None:
        """As by a write that went wrong: its time is another. One with time and size as before is read each minute."""
        super().inject(site)
        for path in self._files:
            site.script('touch "$1"', path)

    def heal(self, site: Site) -> None:
        """Copy the copy: a backup taken meanwhile is listed in it."""
        for path in self._files:
            site.script('cp -a "$1.copy" "$1"; rm -f "$2"', path, site.saved(path))


class ArchiveInfoCorrupt(Described):
    """Without it no WAL is taken."""

    name = "archive-info-corrupt"
    title = "archive.info and its copy are damaged: no WAL is taken, no backup is possible"
    places = ("archive/{}/archive.info", "archive/{}/archive.info.copy")
    expected = Expected(signal="wal-archiving", reason=r"unable to load info file .*archive\.info")


class HeapPageCorrupt(Fault):
    """Found when a backup reads the page. An operator repairs it, takes damaged backups off, and takes another one."""

    name = "heap-page-corrupt"
    title = "A page of a table is damaged on the server's disk: the next backup finds it"
    tags = ("corruption", "database")
    silent = True
    expected = Expected(signal="backups", reason=r"backup \S+ found pages with wrong checksums")

    def __init__(self) -> None:
        self._file: Path | None = None

    def inject(self, site: Site) -> None:
        """Damage a table that nobody reads, and let the backup worker take its next backup now."""
        table = "TABLE damaged WITH (autovacuum_enabled = off) AS SELECT repeat('x', 100) FROM generate_series(1, 500)"
        statements = (f"CREATE {table}", "CHECKPOINT", "SELECT pg_relation_filepath('damaged')")
        where = site.run("psql", "-qXAt", *(f"--command={statement}" for statement in statements))
        self._file = site.stack.places.data / where.stdout.strip()
        site.keep(self._file)
        site.script(FLIP, self._file, "12000")
        _next_run(site)

    def prove(self, site: Site) -> str:
        """Compare the file with what was saved."""
        if self._file is None:
            raise ProofError("nothing was damaged")
        return compare(site, self._file)

    def heal(self, site: Site) -> None:
        """Repair the page in place, for the server has the file open; expire the backups that hold it; take another."""
        if self._file:
            site.script('[ ! -e "$2" ] || { cat "$2" >"$1"; rm "$2"; }', self._file, site.saved(self._file))
        site.run("psql", "-qX", "-c", "DROP TABLE IF EXISTS damaged")
        damaged = _labels_with_errors(site)
        for label in damaged:
            site.run("pgbackrest", "expire", f"--set={label}", service=Service.BACKUP)
        if damaged:
            _next_run(site)


def _labels_with_errors(site: Site) -> list[str]:
    """Return the newest first: of those that build on each other, the one that is built on goes last."""
    stanzas = json_in(site.run("pgbackrest", "info", "--output=json", service=Service.BACKUP))
    mine = [entry for stanza in stanzas if stanza["name"] == site.stack.stanza for entry in stanza["backup"]]
    return [entry["label"] for entry in reversed(mine) if entry.get("error")]


def _next_run(site: Site) -> None:
    """Let the backup worker take its next backup now, and wait until it has ended: without its record one is due."""
    record = site.stack.places.state / "backup.json"
    site.script('rm -f "$1"', record)
    ended = ("grep", "-q", '"last":{', str(record))
    wait_until(
        lambda: site.run(*ended, check=False).exit_code == 0, limit=site.limits.backup, what="the worker's backup"
    )


FAULTS: tuple[type[Fault], ...] = (
    BackupFileBitflip,
    BackupFileTruncated,
    BackupFileDeleted,
    BundleInherited,
    ManifestCorrupt,
    BackupInfoCorrupt,
    BackupInfoHalfCorrupt,
    ArchiveInfoCorrupt,
    HeapPageCorrupt,
)
