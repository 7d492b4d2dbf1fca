"""A Compose project of our own, by way of testcontainers; and what must hold so that it cannot harm another."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from testcontainers.compose import DockerCompose

from pytest_iopbackup.errors import UsageError
from pytest_iopbackup.stack.base import CommandResult, LineListener
from pytest_iopbackup.stack.host import run_program
from pytest_iopbackup.stack.mapping import ComposeMapping


@dataclass
class Project(DockerCompose):
    """One Compose project.

    testcontainers gives projects no name, so that two in one directory would be one, and hides exit codes; both is
    mended here. ``settings`` are the environment that Compose fills the file's variables from.
    """

    name: str = ""
    settings: Mapping[str, str] | None = None
    limit: float = 600
    """Seconds for a command of Compose."""

    @cached_property
    def compose_command_property(self) -> list[str]:
        """Compose's command, with the project's name."""
        binary, compose, *options = super().compose_command_property
        return [binary, compose, "--project-name", self.name, *options]

    def _run_command(self, cmd: str | list[str], context: str | None = None) -> CompletedProcess[bytes]:  # noqa: ARG002
        """Run as everything is run here: with a time limit, and an error that says what was printed."""
        argv = cmd.split() if isinstance(cmd, str) else cmd
        result = self.call(argv, timeout=self.limit)
        return CompletedProcess(argv, result.exit_code, result.stdout.encode(), result.stderr.encode())

    def call(
        self, argv: list[str], *, timeout: float, check: bool = True, listener: LineListener | None = None
    ) -> CommandResult:
        """Run a program beside the Compose file, which sees the project as we do."""
        return run_program(
            argv,
            cwd=Path(self.context),
            env=self.environment,
            timeout=timeout,
            check=check,
            listener=listener,
            as_account=False,
        )

    @property
    def environment(self) -> Mapping[str, str]:
        """What a program sees that calls Compose on this project."""
        return {**os.environ, **(self.settings or {}), "COMPOSE_PROJECT_NAME": self.name}

    def up(self, *services: str) -> None:
        """Start services, and wait until they are healthy."""
        self.services = list(services)
        try:
            self.start()
        finally:
            self.services = None

    def run_service(
        self,
        service: str,
        *arguments: str,
        timeout: float,
        env: Mapping[str, str] | None = None,
        entrypoint: str | None = None,
        listener: LineListener | None = None,
        check: bool = True,
    ) -> CommandResult:
        """Run a service's container once, alone, with these arguments."""
        options = [part for name, value in (env or {}).items() for part in ("--env", f"{name}={value}")]
        if entrypoint is not None:
            options += ["--entrypoint", entrypoint]
        run = ["run", "--rm", "--no-deps", "--no-TTY", *options, service, *arguments]
        return self.call([*self.compose_command_property, *run], timeout=timeout, check=check, listener=listener)

    def containers(self) -> Mapping[str, str]:
        """Return the container of each service, stopped ones included."""
        found = self.get_containers(include_all=True)
        return {entry.Service: entry.ID for entry in found if entry.Service and entry.ID}

    def configuration(self) -> Mapping[str, Any]:
        """Return the Compose file as Compose understands it. Raises CommandError where it does not."""
        command = ["--profile", "*", "config", "--format", "json"]
        content: Mapping[str, Any] = json.loads(self._run_command([*self.compose_command_property, *command]).stdout)
        return content


def refuse_harm(configuration: Mapping[str, Any], project: str, mapping: ComposeMapping, file: str) -> None:
    """Raise UsageError for a Compose file whose project would share something with another: a drill cannot harm.

    ``configuration`` is what ``docker compose config`` says of it.
    """
    problems = [*_missing(configuration, mapping), *_shared(configuration, project)]
    if problems:
        raise UsageError(
            f"{file} cannot be drilled on: {'; '.join(problems)}",
            hint="a drill runs a copy of the stack, with volumes and networks of its own; name other services and "
            "volumes with --iop-compose-map; a second --iop-compose-file overrides what is shared",
        )


def _missing(configuration: Mapping[str, Any], mapping: ComposeMapping) -> Iterator[str]:
    for kind, names, known in (
        ("service", mapping.services, configuration.get("services", {})),
        ("volume", mapping.volumes, configuration.get("volumes", {})),
    ):
        for name in (getattr(names, field) for field in names.__dataclass_fields__):
            if name not in known:
                yield f"it has no {kind} '{name}' (it has {', '.join(sorted(known)) or 'none'})"


def _shared(configuration: Mapping[str, Any], project: str) -> Iterator[str]:
    for kind in ("volumes", "networks"):
        for name, entry in configuration.get(kind, {}).items():
            if entry.get("external") or not str(entry.get("name", "")).startswith(f"{project}_"):
                yield f"{kind[:-1]} '{name}' is not the project's own (it is '{entry.get('name', name)}')"
    for service, entry in configuration.get("services", {}).items():
        if "container_name" in entry:
            yield f"service '{service}' has the fixed container_name '{entry['container_name']}'"
        yield from _outside(service, entry.get("volumes", ()))
        yield from (f"service '{service}' publishes port {port['published']}" for port in entry.get("ports", ())
                    if str(port.get("published", "0")) != "0")  # fmt: skip


def _outside(service: str, mounts: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for mount in mounts:
        if mount["type"] == "bind" and not mount.get("read_only"):
            yield f"service '{service}' may write to {mount['source']} of this machine"
