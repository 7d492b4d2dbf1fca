"""The Compose stack: the deployed system's own services, as a Compose project of its own."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_iopbackup.errors import CommandError, DeadlineError, IopError, UsageError
from pytest_iopbackup.limits import Limits, wait_until
from pytest_iopbackup.stack.base import DATABASE, CommandResult, LineListener, Places, Service
from pytest_iopbackup.stack.compose_copy import ComposeCopy, Origin
from pytest_iopbackup.stack.docker import ContainerHost, Surgeon, docker, enter, inspect, pause, remove_projects
from pytest_iopbackup.stack.mapping import ComposeMapping
from pytest_iopbackup.stack.project import Project

if TYPE_CHECKING:
    import psycopg

_BLOCKED = 2
"""Exit code of control.sh for wrong arguments or a wrong token: it has touched nothing."""


class ComposeStack:
    """The services of a Compose project; ``directory`` holds what of it lives outside Docker."""

    kind = "compose"

    def __init__(self, directory: Path, project: Project, mapping: ComposeMapping, limits: Limits, stanza: str) -> None:
        self.directory = directory
        self.project = project
        self.stanza = stanza
        self.token = mapping.token
        self.kept = False
        self._mapping = mapping
        self._limits = limits
        paths = mapping.paths
        self.places = Places(
            data=Path(paths.data),
            repository=Path(paths.repository),
            spool=Path(paths.spool),
            lock=Path(paths.spool, "lock"),
            state=Path(paths.state),
            configuration=Path(paths.scripts),
        )
        services = mapping.services
        self._names = {
            Service.DATABASE: services.database,
            Service.BACKUP: services.backup,
            Service.CHECK: services.check,
        }
        self._containers: Mapping[str, str] = {}
        self._restarts: dict[Service, int] = {}
        self._stopped: set[Service] = set()
        self._address: str | None = None
        self._copies = count(1)
        self._password: str | None = None

    def up(self, *services: Service) -> None:
        """Make and start these services and what they need, and wait until they are healthy."""
        self.project.up(*(self._names[service] for service in services))
        self._look()

    def _look(self) -> None:
        """Learn which containers there are: commands of Compose may have replaced some."""
        self._containers = self.project.containers()
        self._address = None
        self._stopped.clear()
        for service, name in self._names.items():
            if name in self._containers:
                self._restarts[service] = inspect(self._containers[name])["RestartCount"]

    def _container(self, service: Service) -> str:
        return self._containers[self._names[service]]

    def host(self, service: Service) -> ContainerHost:
        """See :class:`~pytest_iopbackup.stack.base.Stack`; a worker that does not run has the core service's."""
        if service in self._stopped:
            return self._core
        return ContainerHost(self._names[service], self._container(service))

    @property
    def _core(self) -> ContainerHost:
        name = self._mapping.services.core
        return ContainerHost(name, self._containers[name])

    def surgeon(self) -> Surgeon:
        """See :class:`~pytest_iopbackup.stack.base.Stack`: in a container of its own, as root.

        It can change the deployed scripts where they are a copy of ours, but never the user's own.
        """
        scripts = self.directory / "deployed" / "pgbackrest"
        volumes = (f"--volume={scripts}:{self.places.configuration}",) if scripts.is_dir() else ()
        return Surgeon("surgeon", self._core.container, volumes)

    @property
    def shelter(self) -> Path:
        """See :class:`~pytest_iopbackup.stack.base.Stack`."""
        return self.places.state / "shelter"

    def freeze(self, service: Service) -> None:
        """See :class:`~pytest_iopbackup.stack.base.Stack`."""
        pause(self._container(service), self._limits.command)
        self._stopped.add(service)

    def thaw(self, service: Service) -> None:
        """See :class:`~pytest_iopbackup.stack.base.Stack`."""
        docker("unpause", self._container(service), check=False)
        self._stopped.discard(service)

    def within(self, *argv: str, timeout: float) -> None:
        """See :class:`~pytest_iopbackup.stack.base.Stack`."""
        for container in self._containers.values():
            enter(container, *argv, timeout=timeout)

    def remount(self) -> None:
        """See :class:`~pytest_iopbackup.stack.base.Stack`: a container's mounts are made when it starts."""
        docker("restart", *self._containers.values(), timeout=self._limits.stop + self._limits.start)
        self._look()

    def copy(self, variables: Mapping[str, str] | None = None) -> ComposeCopy:
        """See :class:`~pytest_iopbackup.stack.base.Stack`."""
        origin = Origin(
            core=self._core.container,
            network=next(iter(inspect(self._container(Service.DATABASE))["NetworkSettings"]["Networks"])),
            places=self.places,
            stanza=self.stanza,
            directory=self.directory,
            log_in=self._log_in,
            variables=variables or {},
        )
        return ComposeCopy(f"{self.project.name}-copy-{next(self._copies)}", origin)

    def health(self, service: Service) -> CommandResult:
        """See :class:`~pytest_iopbackup.stack.base.Stack`: as the engine last found it, every few seconds."""
        state = inspect(self._container(service))["State"]
        health = state.get("Health", {})
        last = (health.get("Log") or [{}])[-1].get("Output", "").strip()
        well = state["Status"] == "running" and health.get("Status") != "unhealthy"
        said = last if state["Status"] == "running" else f"the container is {state['Status']}"
        return CommandResult(("docker", "inspect", self._names[service]), 0 if well else 1, said, "", 0.0)

    def start(self, service: Service) -> None:
        """See :class:`~pytest_iopbackup.stack.base.Stack`."""
        if self.running(service):
            raise UsageError(f"the {service.value} service runs already", hint="stop it first")
        docker("start", self._container(service), timeout=self._limits.start)
        self._address = None
        self._stopped.discard(service)
        self._restarts[service] = inspect(self._container(service))["RestartCount"]

    def stop(self, service: Service, *, immediate: bool = False) -> None:
        """See :class:`~pytest_iopbackup.stack.base.Stack`; ``immediate`` kills every process of the container."""
        if immediate:
            self.kill(service)
            return
        container = self._container(service)
        self._address = None
        self._stopped.add(service)
        if not inspect(container)["State"]["Running"]:
            return
        patience = int(self._limits.stop)
        docker("stop", "--time", str(patience), container, timeout=patience + 30)
        if inspect(container)["State"]["ExitCode"] == 137:
            raise DeadlineError(
                f"the {service.value} service did not stop within {patience} s and was killed",
                hint=f"its log: docker logs {container[:12]}",
            )

    def kill(self, service: Service) -> None:
        """See :class:`~pytest_iopbackup.stack.base.Stack`: with a container's first process, the kernel kills all."""
        container = self._container(service)
        self._address = None
        self._stopped.add(service)
        docker("kill", container, check=False, timeout=self._limits.stop)  # it may have ended before
        limit, what = self._limits.stop, "a container to end"
        wait_until(lambda: not inspect(container)["State"]["Running"], limit=limit, what=what)

    def running(self, service: Service) -> bool:
        """See :class:`~pytest_iopbackup.stack.base.Stack`; one that Docker has started again has ended."""
        found = inspect(self._container(service))
        restarted: int = found["RestartCount"] - self._restarts.get(service, 0)
        return bool(found["State"]["Running"]) and not restarted

    def wipe_data(self) -> None:
        """See :class:`~pytest_iopbackup.stack.base.Stack`; by the stack's own service."""
        if self.running(Service.DATABASE):
            raise UsageError("the data directory is in use", hint="stop the database first")
        self.project.run_service(self._mapping.services.wipe, self._mapping.token, timeout=self._limits.command)

    def restore(
        self,
        options: list[str],
        *,
        timeout: float,
        env: Mapping[str, str] | None = None,
        listener: LineListener | None = None,
    ) -> CommandResult:
        """See :class:`~pytest_iopbackup.stack.base.Stack`; by the stack's own service."""
        return self.project.run_service(
            self._mapping.services.restore, self._mapping.token, *options, timeout=timeout, env=env, listener=listener
        )

    def operate(self, *arguments: str, timeout: float) -> CommandResult:
        """See :class:`~pytest_iopbackup.stack.base.Stack`."""
        script = Path(self.project.context) / "control.sh"
        if not script.is_file():
            raise UsageError(f"there is no {script}", hint="control.sh stands beside the Compose file it operates")
        result = self.project.call([str(script), *arguments], timeout=timeout, check=False)
        if result.exit_code != _BLOCKED:
            self._look()
        return result

    def configure(self, variables: Mapping[str, str | None]) -> None:
        """See :class:`~pytest_iopbackup.stack.base.Stack`."""
        settings = {**(self.project.settings or {}), **self._mapping.translate(variables)}
        self.project.settings = {name: value for name, value in settings.items() if value is not None}
        trouble: CommandError | None = None

        def brought_up() -> bool:
            nonlocal trouble
            try:
                self.up(*Service)
            except CommandError as error:
                # A health check lags behind by a look: Compose takes a restore that is just over for the end of it.
                if " is unhealthy" not in error.message:
                    raise
                trouble = error
                return False
            return True

        try:
            wait_until(brought_up, limit=self._limits.start, what="every service to be healthy", pause=0.5)
        except DeadlineError as error:
            raise trouble or error from None  # Compose says which service it is

    def helper(self, name: str, *arguments: str, timeout: float) -> CommandResult:
        """See :class:`~pytest_iopbackup.stack.base.Stack`."""
        services = self._mapping.services
        service = {"wipe": services.wipe, "restore": services.restore}[name]
        return self.project.run_service(service, *arguments, timeout=timeout, check=False)

    def started(self) -> Mapping[str, str]:
        """See :class:`~pytest_iopbackup.stack.base.Stack`."""
        return {service.value: inspect(self._container(service))["State"]["StartedAt"] for service in Service}

    def connect(self, *, autocommit: bool = True, options: str = "") -> psycopg.Connection[tuple[Any, ...]]:
        """See :class:`~pytest_iopbackup.stack.base.Stack`; over the project's own network."""
        return self._log_in(self._find_address(), autocommit, options)

    def _log_in(self, address: str, autocommit: bool, options: str) -> psycopg.Connection[tuple[Any, ...]]:
        import psycopg  # noqa: PLC0415 - costs 60 ms, which runs without a stack need not pay

        login = self._mapping.login
        if self._password is None:
            password = self._core.read(Path(login.password_file))
            self._password = password.decode().rstrip("\n")
        return psycopg.connect(
            host=address, port=login.port, user=login.user, password=self._password, dbname=DATABASE,
            autocommit=autocommit, options=options, application_name="pytest-iopbackup", connect_timeout=10,
        )  # fmt: skip

    def _find_address(self) -> str:
        if self._address is None:
            networks = inspect(self._container(Service.DATABASE))["NetworkSettings"]["Networks"]
            found = [network["IPAddress"] for network in networks.values() if network["IPAddress"]]
            if not found:
                import psycopg  # noqa: PLC0415 - likewise

                raise psycopg.OperationalError("the database's container has no address: it is not running")
            self._address = found[0]
        return self._address

    def database_log(self, offset: int = 0) -> str:
        """See :class:`~pytest_iopbackup.stack.base.Stack`."""
        return docker("logs", self._container(Service.DATABASE)).stderr.encode()[offset:].decode(errors="replace")

    def database_log_size(self) -> int:
        """See :class:`~pytest_iopbackup.stack.base.Stack`."""
        return len(self.database_log().encode())

    def logs(self) -> Mapping[str, str]:
        """See :class:`~pytest_iopbackup.stack.base.Stack`."""
        found = {}
        for service, container in self._containers.items():
            result = docker("logs", "--tail", "40", container, check=False)
            found[service] = result.stdout + result.stderr
        return found

    def close(self) -> None:
        """See :class:`~pytest_iopbackup.stack.base.Stack`."""
        if self.kept:
            with contextlib.suppress(IopError):
                self.project.stop(down=False)
            return
        remove_projects(self.directory)
        shutil.rmtree(self.directory, ignore_errors=True)
