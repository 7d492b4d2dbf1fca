"""A Compose project of our own, by way of testcontainers."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from testcontainers.compose import DockerCompose

from pytest_iopbackup.errors import UsageError
from pytest_iopbackup.stack.base import CommandResult, LineListener
from pytest_iopbackup.stack.host import run_program


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

    def require_no_volumes(self) -> None:
        """Raise UsageError where the project has volumes already: they are somebody's."""
        label = f"label=com.docker.compose.project={self.name}"
        found = self.call(["docker", "volume", "ls", "--quiet", "--filter", label], timeout=self.limit).stdout.split()
        if found:
            raise UsageError(f"the Compose project {self.name} has volumes already: {', '.join(found)}")

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
        listener: LineListener | None = None,
        check: bool = True,
    ) -> CommandResult:
        """Run a service's container once, alone, with these arguments."""
        options = [part for name, value in (env or {}).items() for part in ("--env", f"{name}={value}")]
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
