"""The two workers: dead, stopped, hanging or failing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

from pytest_iopbackup.errors import ProofError
from pytest_iopbackup.faults import processes
from pytest_iopbackup.faults.base import Expected, Fault
from pytest_iopbackup.faults.site import Site
from pytest_iopbackup.limits import wait_until
from pytest_iopbackup.stack.base import Service


def record(site: Site, service: Service) -> dict[str, Any]:
    """Return what a worker has recorded; empty if it has not."""
    text = site.script('cat "$1" || true', _record(site, service))
    return dict(json.loads(text)) if text else {}


def await_idle(site: Site) -> None:
    """Wait until the backup worker has nothing to do, its last run being a success: it may have one to make up for."""

    def idle() -> bool:
        found = record(site, Service.BACKUP)
        last = found.get("last")
        return found.get("state") == "waiting" and last is not None and last["exit_code"] in {0, 3}

    wait_until(idle, limit=site.limits.backup, what="the backup worker to have nothing to do")


def make_due(site: Site) -> None:
    """Make the backup worker begin a run: one is due whenever its record is gone."""
    site.surgery("rm", "-f", str(_record(site, Service.BACKUP)))


def _record(site: Site, service: Service) -> Path:
    return site.stack.places.state / f"{service.value}.json"


def backup_script(site: Site) -> Path:
    """Return the script that the backup worker runs."""
    return site.stack.places.configuration / "backup.sh"


def begin_script(site: Site, line: str) -> None:
    """Let backup.sh begin with a line of shell, to be put back with the script."""
    strict = "set -Eeuo pipefail\n"
    site.edit(backup_script(site), lambda text: text.replace(strict, f"{strict}{line}\n", 1))


class WorkerDead(Fault):
    """SIGKILL, as from the kernel when memory is short."""

    tags = ("workers", "processes")
    silent = True
    service: ClassVar[Service]
    pid = 0

    def inject(self, site: Site) -> None:
        """Kill it."""
        self.pid = processes.worker(site, self.service)
        processes.send(site, "KILL", self.pid, service=self.service)

    def prove(self, site: Site) -> str:
        """See that it is gone."""
        if site.stack.running(self.service):
            raise ProofError("it runs")
        return f"process {self.pid}, the {self.service.value} worker, is gone"

    def heal(self, site: Site) -> None:
        """Start it again."""
        if not site.stack.running(self.service):
            site.stack.start(self.service)


class WorkerStopped(Fault):
    """SIGSTOP, as from a paused container or a debugger."""

    tags = ("workers", "processes")
    silent = True
    service: ClassVar[Service]
    pid = 0

    def inject(self, site: Site) -> None:
        """Stop it."""
        self.pid = processes.worker(site, self.service)
        processes.send(site, "STOP", self.pid, service=self.service)

    def prove(self, site: Site) -> str:
        """Read its state."""
        return processes.require_stopped(site, self.pid)

    def heal(self, site: Site) -> None:
        """Let it go on."""
        if self.pid:
            processes.send(site, "CONT", self.pid, service=self.service)


class BackupWorkerDead(WorkerDead):
    """No backup is taken any more."""

    name = "backup-worker-dead"
    title = "The backup worker was killed: no backup is taken any more"
    service = Service.BACKUP
    expected = Expected(signal="workers", reason=r"backup worker: no heartbeat for \d+ s", within=20)


class BackupWorkerStopped(WorkerStopped):
    """Its container is up."""

    name = "backup-worker-stopped"
    title = "The backup worker hangs: its process is there, and takes no backup"
    service = Service.BACKUP
    expected = Expected(signal="workers", reason=r"backup worker: no heartbeat for \d+ s", within=20)


class BackupWorkerPaused(Fault):
    """As by ``docker pause``: nothing in the container runs, the health check neither."""

    name = "backup-worker-paused"
    title = "The backup worker's container is paused: it is up, and nothing in it runs"
    tags = ("workers", "backup")
    silent = True
    stacks = frozenset({"compose"})
    expected = Expected(signal="workers", reason=r"backup worker: no heartbeat for \d+ s", within=20)

    def inject(self, site: Site) -> None:
        """Pause it."""
        site.stack.freeze(Service.BACKUP)

    def prove(self, site: Site) -> str:
        """Ask the engine."""
        said = site.stack.health(Service.BACKUP).stdout
        if said != "the container is paused":
            raise ProofError(f"the backup worker's health: {said}")
        return said

    def heal(self, site: Site) -> None:
        """Let it go on."""
        site.stack.thaw(Service.BACKUP)


class BackupWorkerFailing(Fault):
    """It lives, and tries again an hour later."""

    name = "backup-worker-failing"
    title = "Every run of the backup worker fails"
    tags = ("workers", "backup")
    silent = True
    expected = Expected(signal="workers", reason=r"backup worker: the last run ended with exit code [1-9]")

    def inject(self, site: Site) -> None:
        """Let backup.sh find no pgbackrest, and make a run due."""
        site.edit(backup_script(site), lambda text: text.replace("attend pgbackrest", "attend /nonexistent/pgbackrest"))
        make_due(site)

    def prove(self, site: Site) -> str:
        """Read how the last run ended."""
        last = record(site, Service.BACKUP).get("last")
        if last is None or last["exit_code"] in {0, 3}:
            raise ProofError(f"the last run of the backup worker: {last}")
        return f"the last run of the backup worker: {last}"

    def heal(self, site: Site) -> None:
        """Put the script back, and let the worker make up for it."""
        site.put_back(backup_script(site))
        make_due(site)
        await_idle(site)


class BackupHangs(Fault):
    """Whoever wants to take one meanwhile is refused: it holds the lock."""

    name = "backup-hung"
    title = "A backup waits for a checkpoint that never ends, and holds the lock"
    tags = ("workers", "backup")
    silent = True
    variables: ClassVar = {"DATABASE_BACKUP_LIMIT": "3"}
    expected = Expected(signal="workers", reason=r"the run in progress has taken \d+ s, more than 3 s")
    checkpointer = 0

    def inject(self, site: Site) -> None:
        """Stop the checkpointer, and make a run due."""
        self.checkpointer = processes.backend(site, "checkpointer")
        processes.send(site, "STOP", self.checkpointer)
        make_due(site)

    def prove(self, site: Site) -> str:
        """See the backup wait in the server."""
        rows = site.sql("SELECT query FROM pg_stat_activity WHERE query ~ 'pg_(backup_start|start_backup)'"
                        " AND state = 'active' AND pid <> pg_backend_pid()")  # fmt: skip
        if not rows:
            raise ProofError("no backup waits")
        return f"{processes.require_stopped(site, self.checkpointer)}, the checkpointer; {rows[0][0][:60]} waits for it"

    def heal(self, site: Site) -> None:
        """Let the checkpointer go on: the backup ends well."""
        if self.checkpointer:
            processes.send(site, "CONT", self.checkpointer)
            await_idle(site)


class CheckWorkerDead(WorkerDead):
    """Its last report stays as it was: only its age tells."""

    name = "check-worker-dead"
    title = "The check worker was killed: its last report says for ever that all is well"
    service = Service.CHECK
    expected = Expected(signal="check-worker", reason=r"no heartbeat for \d+ s", within=20)


class CheckWorkerStopped(WorkerStopped):
    """Its container is up."""

    name = "check-worker-stopped"
    title = "The check worker hangs: its last report says for ever that all is well"
    service = Service.CHECK
    expected = Expected(signal="check-worker", reason=r"no heartbeat for \d+ s", within=20)


FAULTS: tuple[type[Fault], ...] = (
    BackupWorkerDead,
    BackupWorkerStopped,
    BackupWorkerPaused,
    BackupWorkerFailing,
    BackupHangs,
    CheckWorkerDead,
    CheckWorkerStopped,
)
