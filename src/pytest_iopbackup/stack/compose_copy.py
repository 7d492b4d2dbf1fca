"""A place beside a Compose stack to restore its repository into: one container on the stack's volumes and network."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_iopbackup.errors import IopError, UsageError
from pytest_iopbackup.limits import wait_until
from pytest_iopbackup.stack.base import CommandResult, LineListener, Places, Service
from pytest_iopbackup.stack.docker import LABEL, ContainerHost, docker, inspect

if TYPE_CHECKING:
    import psycopg

_TOP = Path("/copy")
"""A tmpfs of the container, gone with it."""
_SECONDS = 60.0
_START = """
cd "$1" && { postgres -D "$2" -c archive_mode=off -c unix_socket_directories="$1" -c listen_addresses=* -c fsync=off \\
    -c shared_buffers=64MB </dev/null >>log 2>&1 & echo $! >pid; }"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a copy has from the stack that it is made beside."""

    core: str
    """The core service's container."""
    network: str
    places: Places
    stanza: str
    directory: Path
    log_in: Callable[[str, bool, str], psycopg.Connection[tuple[Any, ...]]]
    """Connects to the server at an address, as to the stack's own; then autocommit, and libpq's options."""
    variables: Mapping[str, str]
    """What the copy's programs find in their environment beside that."""


class ComposeCopy:
    """A restored server of its own: it reads the repository, archives nothing, and has no workers."""

    def __init__(self, name: str, origin: Origin) -> None:
        self.stanza = origin.stanza
        self.directory = origin.directory
        self.places = replace(origin.places, data=_TOP / "data", spool=_TOP / "spool", lock=_TOP / "lock")
        self._log_in = origin.log_in
        like = inspect(origin.core)["Config"]
        own = {
            "PGDATA": self.places.data,
            "PGHOST": _TOP,
            "PGBACKREST_PG1_PATH": self.places.data,
            "PGBACKREST_PG1_SOCKET_PATH": _TOP,
            "PGBACKREST_SPOOL_PATH": self.places.spool,
            "PGBACKREST_LOCK_PATH": self.places.lock,
            **origin.variables,
        }
        given = [entry for entry in like["Env"] if "=" in entry]  # one without a value is not set
        environment = [*given, *(f"{variable}={value}" for variable, value in own.items())]
        options = [part for entry in environment for part in ("--env", entry)]
        started = docker(
            "run", "--detach", "--init", "--name", name, "--label", f"{LABEL}={like['Labels'][LABEL]}",
            "--network", origin.network, f"--volumes-from={origin.core}:ro", f"--tmpfs={_TOP}:exec,mode=1777", *options,
            "--entrypoint=sleep", like["Image"], "infinity",
        )  # fmt: skip
        self._container = started.stdout.strip()
        self._host = ContainerHost(name, self._container)
        self._run(
            "mkdir", "--mode=0700", *(str(path) for path in (self.places.data, self.places.spool, self.places.lock))
        )

    def host(self, service: Service) -> ContainerHost:  # noqa: ARG002 - there is one
        """See :class:`~pytest_iopbackup.stack.base.Restorable`."""
        return self._host

    def start(self, service: Service) -> None:
        """See :class:`~pytest_iopbackup.stack.base.Restorable`."""
        if service is not Service.DATABASE:
            raise UsageError("a copy has no workers")
        self._run("sh", "-ec", _START, "sh", str(_TOP), str(self.places.data))

    def stop(self, service: Service, *, immediate: bool = False) -> None:
        """See :class:`~pytest_iopbackup.stack.base.Restorable`."""
        if self.running(service):
            self._run("sh", "-c", f"kill -{'QUIT' if immediate else 'INT'} $(cat {_TOP}/pid)")
            wait_until(lambda: not self.running(service), limit=_SECONDS, what="a copy's server to stop")

    def running(self, service: Service) -> bool:
        """See :class:`~pytest_iopbackup.stack.base.Restorable`."""
        if service is not Service.DATABASE:
            return False
        return self._run("sh", "-c", f"kill -0 $(cat {_TOP}/pid)", check=False).exit_code == 0

    def wipe_data(self) -> None:
        """See :class:`~pytest_iopbackup.stack.base.Restorable`."""
        self._run("find", str(self.places.data), "-mindepth", "1", "-delete")

    def restore(
        self,
        options: list[str],
        *,
        timeout: float,
        env: Mapping[str, str] | None = None,
        listener: LineListener | None = None,
    ) -> CommandResult:
        """See :class:`~pytest_iopbackup.stack.base.Restorable`."""
        return self._host.run(["pgbackrest", "restore", *options], timeout=timeout, env=env, listener=listener)

    def connect(self, *, autocommit: bool = True, options: str = "") -> psycopg.Connection[tuple[Any, ...]]:
        """See :class:`~pytest_iopbackup.stack.base.Restorable`."""
        networks = inspect(self._container)["NetworkSettings"]["Networks"].values()
        return self._log_in(next(entry["IPAddress"] for entry in networks), autocommit, options)

    def database_log(self, offset: int = 0) -> str:
        """See :class:`~pytest_iopbackup.stack.base.Restorable`."""
        log = self._run("cat", f"{_TOP}/log", check=False).stdout
        return log.encode()[offset:].decode(errors="replace")

    def database_log_size(self) -> int:
        """See :class:`~pytest_iopbackup.stack.base.Restorable`."""
        return len(self.database_log().encode())

    def close(self) -> None:
        """See :class:`~pytest_iopbackup.stack.base.Restorable`."""
        with contextlib.suppress(IopError):
            docker("rm", "--force", "--volumes", self._container)

    def _run(self, *argv: str, check: bool = True) -> CommandResult:
        return self._host.run(argv, timeout=_SECONDS, check=check)
