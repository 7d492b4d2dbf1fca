"""The local stack: PostgreSQL, pgBackRest and both workers as child processes, in a directory of their own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import astuple, replace
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pytest_iopbackup.errors import DeadlineError, IopError, MachineError, UsageError
from pytest_iopbackup.limits import wait_until
from pytest_iopbackup.stack import leftovers, mounts
from pytest_iopbackup.stack.base import DATABASE, TOKEN, CommandResult, LineListener, Places, Service
from pytest_iopbackup.stack.host import LocalHost, account, await_end, end_group, spawn
from pytest_iopbackup.stack.local_services import (
    COPY_OPTIONS,
    SERVER_OPTIONS,
    LocalSettings,
    command,
    environment,
    frequency,
    log_directory,
    socket_directory,
)

if TYPE_CHECKING:
    import psycopg


class LocalStack:
    """A stack in ``directory``, which holds data, repository, spool, logs, state, socket and the stack's half."""

    kind = "local"
    token = TOKEN

    def __init__(
        self,
        directory: Path,
        settings: LocalSettings,
        variables: Mapping[str, str] | None = None,
        options: Mapping[str, str] = SERVER_OPTIONS,
    ) -> None:
        self.directory = directory
        self.settings = settings
        self.variables: Mapping[str, str] = variables or {}
        """Variables of the deployed system that differ from their defaults."""
        self.stanza = settings.stanza
        self.places = Places(
            data=directory / "data",
            repository=directory / "repo",
            spool=directory / "spool",
            lock=directory / "lock",
            state=directory / "state",
            configuration=directory / "conf",
        )
        self._socket = socket_directory(directory)
        self._logs = log_directory(directory)
        self._processes: dict[Service, subprocess.Popen[bytes]] = {}
        self._options = options
        self._copies = count(1)
        self.kept = False

    def make_directories(self) -> None:
        """Make the stack's directories, for its user alone."""
        for path in (self.directory, self._socket, self._logs, *astuple(self.places)):
            _make(path)

    def make_directory(self) -> None:
        """Make the stack's own directory, empty."""
        _make(self.directory)

    @property
    def environment(self) -> Mapping[str, str]:
        """What every program of the stack sees."""
        return environment(self.directory, self.places, self.settings, self.variables)

    def start_database(self) -> None:
        """Start the database and wait until it accepts connections, outside recovery."""
        self.start(Service.DATABASE)

        def accepting() -> bool:
            if not self.running(Service.DATABASE):
                raise MachineError(f"PostgreSQL did not start:\n{self.log_tail(Service.DATABASE)}")
            import psycopg  # noqa: PLC0415 - costs 60 ms, which runs without a stack need not pay

            try:
                self._connect("postgres").close()
            except psycopg.OperationalError:
                return False
            return True

        wait_until(accepting, limit=self.settings.limits.start, what="PostgreSQL to accept connections")

    def host(self, service: Service) -> LocalHost:
        """See :class:`~pytest_iopbackup.stack.base.Stack`."""
        return LocalHost(service.value, self.directory, self.environment)

    def surgeon(self) -> LocalHost:
        """See :class:`~pytest_iopbackup.stack.base.Stack`: as ourselves."""
        return LocalHost("surgeon", self.directory, self.environment, as_account=False)

    def start(self, service: Service) -> None:
        """See :class:`~pytest_iopbackup.stack.base.Stack`."""
        if self.running(service):
            raise UsageError(f"the {service.value} service runs already", hint="stop it first")
        argv = command(service, self.directory, self.places, self._options)
        surroundings = {**self.environment, **frequency(service, self.variables), leftovers.SERVICE: service.value}
        with self._log(service).open("ab") as log:
            account().own(self._log(service))
            self._processes[service] = spawn(
                argv, cwd=self.directory, env=surroundings, stdout=log, stderr=subprocess.STDOUT
            )

    def stop(self, service: Service, *, immediate: bool = False) -> None:
        """See :class:`~pytest_iopbackup.stack.base.Stack`."""
        process = self._processes.pop(service, None)
        if process is None or process.poll() is not None:
            return
        shutdown = signal.SIGQUIT if immediate else signal.SIGINT  # PostgreSQL's immediate and fast modes
        process.send_signal(shutdown if service is Service.DATABASE else signal.SIGTERM)
        try:
            await_end(process, self.settings.limits.stop)
        except subprocess.TimeoutExpired:
            end_group(process, grace=0.1)
            raise DeadlineError(
                f"the {service.value} service did not stop within {self.settings.limits.stop:g} s and was killed",
                hint=f"its log: {self._log(service)}",
            ) from None

    def kill(self, service: Service) -> None:
        """See :class:`~pytest_iopbackup.stack.base.Stack`."""
        process = self._processes.pop(service, None)
        leftovers.kill(self.directory, service.value)
        if process is not None:
            process.wait(self.settings.limits.stop)

    def running(self, service: Service) -> bool:
        """See :class:`~pytest_iopbackup.stack.base.Stack`."""
        process = self._processes.get(service)
        return process is not None and process.poll() is None

    def wipe_data(self) -> None:
        """See :class:`~pytest_iopbackup.stack.base.Stack`."""
        if self.running(Service.DATABASE):
            raise UsageError("the data directory is in use", hint="stop the database first")
        for entry in self.places.data.iterdir():
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()

    def restore(
        self,
        options: list[str],
        *,
        timeout: float,
        env: Mapping[str, str] | None = None,
        listener: LineListener | None = None,
    ) -> CommandResult:
        """See :class:`~pytest_iopbackup.stack.base.Stack`."""
        return self.host(Service.DATABASE).run(
            ["pgbackrest", "restore", *options], timeout=timeout, env=env, listener=listener
        )

    def operate(self, *arguments: str, timeout: float) -> CommandResult:  # noqa: ARG002 - the protocol's
        """See :class:`~pytest_iopbackup.stack.base.Stack`."""
        raise UsageError(
            f"control.sh {' '.join(arguments)}: a local stack has no control.sh", hint="use --iop-stack=compose"
        )

    @property
    def shelter(self) -> Path:
        """See :class:`~pytest_iopbackup.stack.base.Stack`."""
        return self.directory / "shelter"

    def freeze(self, service: Service) -> None:
        """See :class:`~pytest_iopbackup.stack.base.Stack`."""
        os.killpg(self._processes[service].pid, signal.SIGSTOP)

    def thaw(self, service: Service) -> None:
        """See :class:`~pytest_iopbackup.stack.base.Stack`."""
        os.killpg(self._processes[service].pid, signal.SIGCONT)

    def within(self, *argv: str, timeout: float) -> None:
        """See :class:`~pytest_iopbackup.stack.base.Stack`: its services see what we see."""
        self.surgeon().run(argv, timeout=timeout)

    def remount(self) -> None:
        """See :class:`~pytest_iopbackup.stack.base.Stack`."""

    def copy(self, variables: Mapping[str, str] | None = None) -> LocalStack:
        """See :class:`~pytest_iopbackup.stack.base.Stack`; its directory stands beside the stack's."""
        directory = self.directory.with_name(f"{self.directory.name}c{next(self._copies)}")
        copy = LocalStack(directory, self.settings, {**self.variables, **(variables or {})}, COPY_OPTIONS)
        copy.make_directories()
        copy.places.configuration.rmdir()
        copy.places.configuration.symlink_to(self.places.configuration)  # as seen from the data directory, too
        copy.places = replace(copy.places, repository=self.places.repository)
        return copy

    def health(self, service: Service) -> CommandResult:
        """See :class:`~pytest_iopbackup.stack.base.Stack`."""
        script = str(self.places.configuration / "health.py")
        argv = ["python3", "-B", script, "worker", service.value]
        return self.host(service).run(argv, timeout=self.settings.limits.command, check=False)

    def configure(self, variables: Mapping[str, str | None]) -> None:
        """See :class:`~pytest_iopbackup.stack.base.Stack`."""
        merged = {**self.variables, **variables}
        self.variables = {name: value for name, value in merged.items() if value is not None}
        for service in (Service.BACKUP, Service.CHECK):
            self.stop(service)
            self.start(service)

    def helper(self, name: str, *arguments: str, timeout: float) -> CommandResult:
        """See :class:`~pytest_iopbackup.stack.base.Stack`."""
        script = str(self.places.configuration / "restore.sh")
        return self.host(Service.DATABASE).run(["bash", script, name, *arguments], timeout=timeout, check=False)

    def started(self) -> Mapping[str, str]:
        """See :class:`~pytest_iopbackup.stack.base.Stack`."""
        return {service.value: str(process.pid) for service, process in self._processes.items()}

    def connect(self, *, autocommit: bool = True, options: str = "") -> psycopg.Connection[tuple[Any, ...]]:
        """See :class:`~pytest_iopbackup.stack.base.Stack`."""
        return self._connect(DATABASE, autocommit=autocommit, options=options)

    def _connect(
        self, database: str, *, autocommit: bool = True, options: str = ""
    ) -> psycopg.Connection[tuple[Any, ...]]:
        import psycopg  # noqa: PLC0415 - costs 60 ms, which runs without a stack need not pay

        return psycopg.connect(
            host=str(self._socket), port=5432, user="postgres", dbname=database, autocommit=autocommit, options=options,
            application_name="pytest-iopbackup", connect_timeout=10,
        )  # fmt: skip

    def database_log(self, offset: int = 0) -> str:
        """See :class:`~pytest_iopbackup.stack.base.Stack`."""
        with self._log(Service.DATABASE).open("rb") as log:
            log.seek(offset)
            return log.read().decode(errors="replace")

    def database_log_size(self) -> int:
        """See :class:`~pytest_iopbackup.stack.base.Stack`."""
        log = self._log(Service.DATABASE)
        return log.stat().st_size if log.exists() else 0

    def logs(self) -> Mapping[str, str]:
        """See :class:`~pytest_iopbackup.stack.base.Stack`."""
        return {self._log(service).name: self.log_tail(service, lines=40) for service in Service}

    def log_tail(self, service: Service, lines: int = 8) -> str:
        """Return the last lines of a service's log."""
        log = self._log(service)
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else "(no log)"

    def _log(self, service: Service) -> Path:
        return self._logs / ("postgresql.log" if service is Service.DATABASE else f"worker-{service.value}.log")

    def close(self) -> None:
        """See :class:`~pytest_iopbackup.stack.base.Stack`."""
        mounts.thaw(self.directory)  # first: nothing ends a process that waits for a frozen file system
        for service in (Service.BACKUP, Service.CHECK, Service.DATABASE):
            with contextlib.suppress(IopError):  # killed all the same, and the directory goes
                self.stop(service, immediate=not self.kept)
        leftovers.end(self.directory)
        if not mounts.undo(self.directory) and not self.kept:
            shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> LocalStack:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _make(path: Path) -> None:
    path.mkdir(mode=0o700, exist_ok=True)
    account().own(path)
