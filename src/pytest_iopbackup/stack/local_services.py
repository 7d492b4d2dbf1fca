"""How a local stack's services are started: their command lines, and what they find in their environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pytest_iopbackup.limits import Limits
from pytest_iopbackup.stack import leftovers
from pytest_iopbackup.stack.base import Places, Service
from pytest_iopbackup.stack.binaries import Binaries

_FREQUENCY = {
    Service.BACKUP: ("DATABASE_BACKUP_FREQUENCY", "3600"),
    Service.CHECK: ("PGBACKREST_CHECK_FREQUENCY", "60"),
}
"""The deployed system's variable for each worker's frequency in seconds, and its default."""
SERVER_OPTIONS: Mapping[str, str] = {
    "listen_addresses": "",
    "fsync": "off",  # the machine does not crash in a drill; what PostgreSQL wrote stays readable to pgBackRest
    "wal_init_zero": "off",
    "dynamic_shared_memory_type": "mmap",  # in the data directory: nothing stays in /dev/shm, whatever happens
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",
    "unix_socket_permissions": "0700",
    "max_prepared_transactions": "64",  # for the workload's; a copy needs as many as its original had
}
DURABLE_OPTIONS: Mapping[str, str] = {**SERVER_OPTIONS, "fsync": "on"}
"""Of a server that is to crash: what it acknowledges then counts only if it has been written through."""
COPY_OPTIONS: Mapping[str, str] = {**SERVER_OPTIONS, "archive_mode": "off"}
"""A copy never archives: it would push its own WAL among the original's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSettings:
    """What all local stacks of a run have in common."""

    binaries: Binaries
    limits: Limits
    stanza: str = "iop"


def socket_directory(directory: Path) -> Path:
    """Return where a stack's server listens."""
    return directory / "sock"


def log_directory(directory: Path) -> Path:
    """Return where a stack's programs write their logs."""
    return directory / "log"


def environment(
    directory: Path, places: Places, settings: LocalSettings, variables: Mapping[str, str]
) -> Mapping[str, str]:
    """Return what every program of a stack sees: places through pgBackRest's and libpq's own variables."""
    programs, socket = settings.binaries, str(socket_directory(directory))
    scripts = places.configuration.resolve()
    path = (scripts.parent / "bin", programs.postgresql, programs.pgbackrest.parent, "/usr/local/bin:/usr/bin:/bin")
    return {
        "PATH": ":".join(map(str, path)),
        "HOME": str(directory),
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        leftovers.MARKER: str(directory),
        "PGDATA": str(places.data),
        "IOP_STATE_PATH": str(places.state),
        "PGHOST": socket,
        "PGPORT": "5432",
        "PGUSER": "postgres",
        "PGDATABASE": "postgres",
        "PGBACKREST_CONFIG": str(places.configuration / "pgbackrest.conf"),
        "PGBACKREST_STANZA": settings.stanza,
        "PGBACKREST_PG1_PATH": str(places.data),
        "PGBACKREST_PG1_SOCKET_PATH": socket,
        "PGBACKREST_PG1_PORT": "5432",
        "PGBACKREST_PG1_USER": "postgres",
        "PGBACKREST_REPO1_PATH": str(places.repository),
        "PGBACKREST_SPOOL_PATH": str(places.spool),
        "PGBACKREST_LOG_PATH": str(log_directory(directory)),
        "PGBACKREST_LOCK_PATH": str(places.lock),
        **{name: value for name, value in variables.items() if name not in dict(_FREQUENCY.values())},
    }


def command(service: Service, directory: Path, places: Places, options: Mapping[str, str]) -> list[str]:
    """Return a service's command line; ``options`` are the server's."""
    if service is Service.DATABASE:
        settings = {**options, "unix_socket_directories": str(socket_directory(directory))}
        return [
            "postgres",
            "-D",
            str(places.data),
            *(part for pair in settings.items() for part in ("-c", "=".join(pair))),
        ]
    scripts = places.configuration
    return ["bash", str(scripts / "worker.sh"), service.value, "bash", str(scripts / f"{service.value}.sh")]


def frequency(service: Service, variables: Mapping[str, str]) -> Mapping[str, str]:
    """Return what a worker finds in its environment beside the rest: how often it is to run, in seconds."""
    if service is Service.DATABASE:
        return {}
    name, default = _FREQUENCY[service]
    expected = _FREQUENCY[Service.BACKUP][0]  # by which the checks know that there has to be a backup worker
    told = {expected: variables[expected]} if service is Service.CHECK and expected in variables else {}
    return {"PGBACKREST_FREQUENCY": variables.get(name, default), **told}
