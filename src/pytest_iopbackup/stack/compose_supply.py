"""Compose stacks: each is brought up from nothing, as an operator would, in a project of its own."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from pytest_iopbackup import resources
from pytest_iopbackup.errors import CommandError, IopError, MachineError, UsageError
from pytest_iopbackup.limits import Limits
from pytest_iopbackup.stack.base import DATABASE, Service
from pytest_iopbackup.stack.compose import ComposeStack
from pytest_iopbackup.stack.docker import PROJECT_FILE, docker, find_docker
from pytest_iopbackup.stack.harm import refuse_harm
from pytest_iopbackup.stack.mapping import ComposeMapping, read_mapping
from pytest_iopbackup.stack.project import Project
from pytest_iopbackup.stack.supply import Order, await_first_backup

_VERSIONS = "postgres --version && pgbackrest version"
_ANOTHER_BACKUP = 3
"""backup.sh's exit code when the worker is just taking one."""


class ComposeSupply:
    """Brings Compose stacks up, of the Compose files given (later ones override) or of the one in the package."""

    kind = "compose"

    def __init__(self, files: Sequence[Path], mapping: Path | None, limits: Limits) -> None:
        self._theirs = tuple(files)
        self._mapping_file = mapping
        self._limits = limits

    @cached_property
    def _mapping(self) -> ComposeMapping:
        return read_mapping(self._mapping_file)

    @cached_property
    def _docker(self) -> Mapping[str, str]:
        return find_docker()

    @cached_property
    def _configuration(self) -> Mapping[str, Any]:
        """What Compose makes of the file, once it is known to share nothing."""
        project = self._project(self._top, "iop-look", {})
        try:
            content = project.configuration()
        except CommandError as error:
            raise UsageError(f"Compose file {self._files[0]}: {error.message}") from None
        refuse_harm(content, project.name, self._mapping, str(self._files[0]))
        return content

    @property
    def _files(self) -> tuple[Path, ...]:
        return self._theirs or (resources.deployed() / "compose.yaml",)

    @property
    def _top(self) -> Path:
        return self._files[0].parent

    @cached_property
    def _image(self) -> str:
        """The database's image, built where it can be and is not there."""
        image: str = self._configuration["services"][self._mapping.services.database]["image"]
        if docker("image", "inspect", image, check=False).exit_code:
            hint = "'./control.sh setup' makes it, also where no image registry can be reached"
            if self._theirs:
                raise MachineError(f"there is no image {image}", hint="build or pull it: docker compose build")
            raise MachineError(f"there is no image {image}", hint=hint)
        return image

    @cached_property
    def _programs(self) -> Mapping[str, str]:
        argv = ["run", "--rm", "--network=none", "--entrypoint=bash", self._image, "-c", _VERSIONS]
        postgresql, pgbackrest = docker(*argv).stdout.splitlines()
        return {
            "postgresql": postgresql.split(")", 1)[1].split()[0],
            "pgbackrest": pgbackrest.split()[1],
        }

    def prepare(self) -> None:
        """See :class:`~pytest_iopbackup.stack.supply.Supply`."""
        for file in self._files:  # what was written wrongly is told where there is no Docker, too
            if not file.is_file():
                raise UsageError(f"Compose file {file}: there is no such file", hint="see --iop-compose-file")
        _ = self._mapping, self._docker, self._configuration, self._image

    def versions(self) -> Mapping[str, str]:
        """See :class:`~pytest_iopbackup.stack.supply.Supply`."""
        return {**self._programs, **self._docker}

    def configuration(self) -> Mapping[str, str]:
        """See :class:`~pytest_iopbackup.stack.supply.Supply`."""
        scripts = self._top / "pgbackrest"
        found = dict(resources.digests(scripts)) if scripts.is_dir() else {}
        return {**found, **{file.name: resources.digest(file) for file in self._files}}

    def _project(self, directory: Path, name: str, variables: Mapping[str, str], *overrides: Path) -> Project:
        return Project(
            context=directory,
            compose_file_name=[*(str(file) for file in self._theirs or ["compose.yaml"]), *map(str, overrides)],
            name=name,
            settings=self._mapping.translate(variables),
            limit=self._limits.build,
        )

    def bring(self, order: Order) -> ComposeStack:
        """See :class:`~pytest_iopbackup.stack.supply.Supply`."""
        stack = self._make(order)
        try:
            self._fill(stack, order)
        except BaseException as error:
            if isinstance(error, Exception):
                order.failed(stack)
                if isinstance(error, CommandError):
                    error = _explain(error, stack)  # before what it explains is gone
            stack.close()
            raise error from None
        return stack

    def _make(self, order: Order) -> ComposeStack:
        directory = order.directory
        directory.mkdir(mode=0o700)
        name = f"{order.workspace.name}-{directory.name}"
        (directory / PROJECT_FILE).write_text(name)
        context = self._top if self._theirs else _copy_deployed(directory / "deployed")
        password = directory / "database_password"
        password.write_text(secrets.token_urlsafe(24))
        password.chmod(0o444)  # the containers' user reads it; this directory keeps everybody else out
        variables = {
            "DATABASE_PASSWORD_FILE": str(password),
            "IOP_RESTORE_TOKEN": self._mapping.token,
            **order.variables,
        }
        environment = self._configuration["services"][self._mapping.services.core].get("environment", {})
        stanza = environment.get("PGBACKREST_STANZA") or "iop"
        overrides = [self._limit_volumes(directory, order.sizes)] if order.sizes else []
        project = self._project(context, name, variables, *overrides)
        return ComposeStack(directory, project, self._mapping, self._limits, str(stanza))

    def _limit_volumes(self, directory: Path, sizes: Mapping[str, str]) -> Path:
        """Write a Compose file that puts volumes into memory, of a limited size; return its path."""
        user = docker("image", "inspect", "--format={{.Config.User}}", self._image).stdout.strip().partition(":")[0]
        owner = f"uid={user},gid={user},mode=0750" if user.isdigit() else "mode=0777"
        volumes = {
            getattr(self._mapping.volumes, place): {
                "driver_opts": {"type": "tmpfs", "device": "tmpfs", "o": f"size={size},{owner}"}
            }
            for place, size in sizes.items()
        }
        path = directory / "volumes.json"  # which is YAML, too
        path.write_text(json.dumps({"volumes": volumes}))
        return path

    def _fill(self, stack: ComposeStack, order: Order) -> None:
        """Start the services one after the other, as the local template does, so that the first backup has the data."""
        order.stage("database")
        stack.project.require_no_volumes()
        stack.up(Service.DATABASE)
        host = stack.host(Service.DATABASE)
        create = f"--command=CREATE DATABASE {DATABASE}"
        host.run(["psql", "--quiet", "--no-psqlrc", create], timeout=self._limits.command)
        order.seed(stack)
        order.stage("full backup by the worker")
        stack.up(Service.DATABASE, Service.BACKUP)
        await_first_backup(stack, self._limits.backup)
        order.stage("differential backup")
        script = str(stack.places.configuration / "backup.sh")
        result = stack.host(Service.BACKUP).run(["bash", script, "diff"], timeout=self._limits.backup, check=False)
        if result.exit_code not in {0, _ANOTHER_BACKUP}:
            raise CommandError(result)
        order.stage("first checks")
        stack.up(*Service)


def _copy_deployed(directory: Path) -> Path:
    """Copy what is deployed, readable for the containers' user whatever our umask is."""
    for name in resources.DEPLOYED:
        source, target = resources.deployed() / name, directory / name
        target.parent.mkdir(exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, target)
    for path in (directory, *directory.rglob("*")):
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    return directory


def _explain(error: CommandError, stack: ComposeStack) -> IopError:
    """Say why the services did not come up: Compose's words, and the last lines of each service's log."""
    logs = "\n".join(f"--- {service}\n{text}" for service, text in stack.logs().items())
    return IopError(f"{error.message}\n{logs}")
