"""What the workers and checks write down about themselves, and cannot any more."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pytest_iopbackup.errors import ProofError
from pytest_iopbackup.faults.base import Expected, Fault
from pytest_iopbackup.faults.site import Site
from pytest_iopbackup.faults.workers import await_idle
from pytest_iopbackup.stack.base import Service


class InTheWay(Fault):
    """A directory is where a file of the state directory has to be."""

    tags = ("workers", "state")
    silent = True
    file: ClassVar[str]

    def inject(self, site: Site) -> None:
        """Make it; the file may be written anew meanwhile."""
        site.script('until rm -f "$1" && mkdir -m 755 "$1"; do :; done', self._path(site))

    def prove(self, site: Site) -> str:
        """Look at it."""
        kind = site.script('stat -c %F "$1"', self._path(site)).strip()
        if kind != "directory":
            raise ProofError(f"{self._path(site)} is a {kind}")
        return f"{self._path(site)} is a directory"

    def heal(self, site: Site) -> None:
        """Remove it: the file comes back by itself."""
        site.script('[ ! -d "$1" ] || rm -rf "$1"', self._path(site))

    def _path(self, site: Site) -> Path:
        return site.stack.places.state / self.file


class StatusFileBlocked(InTheWay):
    """Whoever reads the report alone would never hear of anything again."""

    name = "status-file-blocked"
    title = "The check worker cannot write its report: nobody hears of what the checks find"
    file = "check-status.json"
    expected = Expected(signal="check-worker", reason=r"exit code 3")


class RecordBlocked(InTheWay):
    """It works, and nothing tells."""

    name = "check-record-blocked"
    title = "The check worker's record is no file: nothing tells whether it lives"
    file = "check.json"
    expected = Expected(signal="check-worker", reason=r"check\.json does not say how it is")


class MemoryHangs(Fault):
    """One check waits for ever; the others have to be heard all the same."""

    name = "memory-hangs"
    title = "What a check has remembered hangs when it is read: the check never ends"
    tags = ("workers", "state")
    silent = True
    variables: ClassVar = {"IOP_PROBE_TIMEOUT": "2", "IOP_ARCHIVE_CHECK_TIMEOUT": "4"}
    expected = Expected(signal="space", reason=r"no result within 10 s", within=30)

    def inject(self, site: Site) -> None:
        """Put a pipe that nobody writes to in its place, while no check is about to write it."""
        site.stack.stop(Service.CHECK)
        site.surgery("rm", "-f", str(self._path(site)))
        site.run("mkfifo", str(self._path(site)), service=Service.CHECK)
        site.stack.start(Service.CHECK)

    def prove(self, site: Site) -> str:
        """Look at it."""
        kind = site.script('stat -c %F "$1"', self._path(site)).strip()
        if kind != "fifo":
            raise ProofError(f"{self._path(site)} is a {kind}")
        return f"{self._path(site)} is a pipe that nobody writes to"

    def heal(self, site: Site) -> None:
        """Remove it, and let go whoever waits: opened for both ways, a pipe never blocks."""
        site.script('[ ! -p "$1" ] || { exec 3<>"$1"; rm "$1"; exec 3>&-; }', self._path(site))
        if not site.stack.running(Service.CHECK):
            site.stack.start(Service.CHECK)

    def _path(self, site: Site) -> Path:
        return site.stack.places.state / f"remembered-{site.stack.stanza}-space.json"


class BackupWorkerMissing(Fault):
    """As after a deployment without it: nothing is there that could have failed."""

    name = "backup-worker-missing"
    title = "The backup worker was never started, though one is expected: no backup is taken"
    tags = ("workers", "processes")
    silent = True
    variables: ClassVar = {"DATABASE_BACKUP_FREQUENCY": "3600"}
    expected = Expected(signal="workers", reason=r"no backup worker has run here, for \d+ s", within=20)

    def inject(self, site: Site) -> None:
        """Stop it, and remove its record."""
        site.stack.stop(Service.BACKUP)
        site.surgery("rm", "-f", str(site.stack.places.state / "backup.json"))

    def prove(self, site: Site) -> str:
        """Look for both."""
        if site.stack.running(Service.BACKUP) or site.exists(site.stack.places.state / "backup.json"):
            raise ProofError("the backup worker, or its record, is there")
        return "no backup worker runs, nor has one left a record"

    def heal(self, site: Site) -> None:
        """Start it: it begins with a backup."""
        if not site.stack.running(Service.BACKUP):
            site.stack.start(Service.BACKUP)
        await_idle(site)


class CheckScriptIdle(Fault):
    """Every run of the worker ends well."""

    name = "check-script-idle"
    title = "check.sh ends before it has checked anything: its last report says for ever that all is well"
    tags = ("workers", "checks")
    silent = True
    expected = Expected(signal="check-worker", reason=r"the last run, of \S+, has left no report", within=20)

    def inject(self, site: Site) -> None:
        """Let it end at once."""
        site.edit(self._path(site), lambda text: text.replace("\nset -E", "\nexit 0\nset -E", 1))

    def prove(self, site: Site) -> str:
        """Run it."""
        if site.run("bash", str(self._path(site)), service=Service.CHECK).stdout:
            raise ProofError("check.sh has checked something")
        return "check.sh says nothing, with success"

    def heal(self, site: Site) -> None:
        """Put the script back."""
        site.put_back(self._path(site))

    def _path(self, site: Site) -> Path:
        return site.stack.places.configuration / "check.sh"


FAULTS: tuple[type[Fault], ...] = (
    StatusFileBlocked,
    RecordBlocked,
    MemoryHangs,
    BackupWorkerMissing,
    CheckScriptIdle,
)
