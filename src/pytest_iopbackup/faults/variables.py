"""Variables of the deployed system that are wrong, and that its workers have taken up."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pytest_iopbackup.errors import ProofError
from pytest_iopbackup.faults import processes
from pytest_iopbackup.faults.base import Expected, Fault
from pytest_iopbackup.faults.common import create_stanza
from pytest_iopbackup.faults.site import Site
from pytest_iopbackup.faults.workers import await_idle
from pytest_iopbackup.stack.base import Service


class Variable(Fault):
    """A variable of the deployed system is wrong: its workers have taken it up."""

    tags = ("configuration", "variables")
    wrong: ClassVar[dict[str, str]] = {}

    def values(self, site: Site) -> dict[str, str]:  # noqa: ARG002 - for those that depend on it
        """Return the variables with their wrong values."""
        return self.wrong

    def inject(self, site: Site) -> None:
        """Set it."""
        site.configure(**self.values(site))

    def prove(self, site: Site) -> str:
        """Read what the check worker was started with."""
        script = 'tr "\\0" "\\n" <"/proc/$1/environ" || true'
        seen = site.script(script, str(processes.worker(site, Service.CHECK))).splitlines()
        lines = [f"{name}={value}" for name, value in self.values(site).items()]
        if not set(lines) <= set(seen):
            raise ProofError(f"the check worker does not see {lines}")
        return f"the check worker sees {', '.join(lines)}"

    def heal(self, site: Site) -> None:
        """Unset it; the backup worker may then find that it has something to make up for."""
        site.configure(**dict.fromkeys(self.values(site)))
        await_idle(site)


class DataPathWrong(Variable):
    """Backups would be of nothing, or of another cluster."""

    name = "pg1-path-wrong"
    title = "pgBackRest looks for the data directory where it is not"
    wrong: ClassVar = {"PGBACKREST_PG1_PATH": "/nonexistent"}
    expected = Expected(signal="configuration", reason=r"data_directory is \S+, pg1-path /nonexistent")


class BackupsOffline(Variable):
    """pgBackRest refuses, as the server runs. In the configuration file it would ignore the option."""

    name = "backups-offline"
    title = "Backups are to be taken offline: none is, as the server runs"
    wrong: ClassVar = {"PGBACKREST_ONLINE": "n"}
    expected = Expected(signal="configuration", reason=r"online=n: backups need a stopped server")
    silent = True


class WrongStanza(Variable):
    """The database archives to one, and backups go to the other."""

    name = "wrong-stanza"
    title = "The workers are set to a stanza that the repository does not know"
    wrong: ClassVar = {"PGBACKREST_STANZA": "other"}
    expected = Expected(signal="repository", reason=r"missing stanza path \(status 1\)")


class VariableMalformed(Variable):
    """No check runs any more, and the check worker's report says so."""

    name = "variable-malformed"
    title = "A threshold of the checks is no number: no check runs"
    wrong: ClassVar = {"IOP_RPO": "soon"}
    expected = Expected(signal="check-worker", reason=r"IOP_RPO is 'soon'|exit code 3")
    silent = True


class LimitMalformed(VariableMalformed):
    """Perhaps meant to switch a check off."""

    name = "limit-malformed"
    title = "A limit of the checks is zero: no check runs"
    wrong: ClassVar = {"IOP_READY_LIMIT": "0"}
    expected = Expected(signal="check-worker", reason=r"IOP_READY_LIMIT is '0'|exit code 3")


class WorkersElsewhere(Variable):
    """Both repositories work, and neither is whole: WAL goes to the one, backups to the other."""

    name = "workers-elsewhere"
    title = "The workers are set to another repository than the one that WAL goes to"
    expected = Expected(signal="repository", reason=r"not the repository that was here: it has never had backup")

    def values(self, site: Site) -> dict[str, str]:
        """Name the other repository."""
        return {"PGBACKREST_REPO1_PATH": str(_elsewhere(site))}

    def inject(self, site: Site) -> None:
        """Make the other repository, and set it."""
        create_stanza(site, _elsewhere(site))
        super().inject(site)

    def heal(self, site: Site) -> None:
        """Unset it, and remove what went there."""
        super().heal(site)
        site.surgery("rm", "-rf", str(_elsewhere(site)))


def _elsewhere(site: Site) -> Path:
    return site.stack.places.repository.with_name("elsewhere")


FAULTS: tuple[type[Fault], ...] = (
    DataPathWrong,
    BackupsOffline,
    WrongStanza,
    VariableMalformed,
    LimitMalformed,
    WorkersElsewhere,
)
