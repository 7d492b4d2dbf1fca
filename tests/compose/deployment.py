"""The deployed system as an operator has it: a copy of its files, run by control.sh and Docker Compose for real."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FILES = ("control.sh", "control", "compose.yaml", ".env.example", "image", "pgbackrest", "secrets")
TOKEN = "I_UNDERSTAND_THIS_WILL_DELETE_DATABASE_DATA"
FAST = {"DATABASE_BACKUP_FREQUENCY": "3600", "PGBACKREST_CHECK_FREQUENCY": "2"}


def wait_for(condition: Callable[[], object], seconds: float = 60, what: str = "the condition") -> float:
    """Poll until the condition holds; return the seconds that it took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, f"{what}: still not true after {seconds} s"
        time.sleep(0.2)
    return time.monotonic() - started


class Deployment:
    """One deployed system in ``directory``, with a Compose project of its own; settings go to its ``.env``."""

    def __init__(self, directory: Path, settings: Mapping[str, str]) -> None:
        self.directory = directory
        self.project = f"iopt-{secrets.token_hex(4)}"
        self.settings: dict[str, str] = {}
        for name in FILES:
            source, target = ROOT / name, directory / name
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "database_password")
                shutil.copytree(source, target, ignore=ignored)
            elif source.exists():
                shutil.copy2(source, target)
        self.configure({**FAST, **settings, "COMPOSE_PROJECT_NAME": self.project})

    def configure(self, settings: Mapping[str, str]) -> None:
        """Change settings in ``.env``; the next ``up`` applies them."""
        self.settings.update(settings)
        text = "".join(f"{name}={value}\n" for name, value in self.settings.items())
        (self.directory / ".env").write_text(text)

    def run(
        self, *argv: str | Path, timeout: float = 180, stdin: str | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in the deployment's directory."""
        return subprocess.run(
            argv, cwd=self.directory, env={**os.environ, **environment}, input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip

    def control(self, *arguments: str, timeout: float = 180, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run ``control.sh``."""
        return self.run(self.directory / "control.sh", *arguments, timeout=timeout, **environment)

    def compose(self, *arguments: str, timeout: float = 180) -> subprocess.CompletedProcess[str]:
        """Run ``docker compose``."""
        return self.run("docker", "compose", *arguments, timeout=timeout)

    def must(self, *argv: str | Path, timeout: float = 180) -> str:
        """Run a program that has to succeed; return what it printed."""
        result = self.run(*argv, timeout=timeout)
        assert result.returncode == 0, f"{argv}: exit code {result.returncode}\n{result.stdout}{result.stderr}"
        return result.stdout

    def exec(self, service: str, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a program in a service's container."""
        return self.compose("exec", "-T", service, *argv)

    def sql(self, statement: str) -> str:
        """Run SQL as superuser."""
        return self.must("docker", "compose", "exec", "-T", "database", "psql", "-XAtqc", statement).strip()

    def containers(self) -> dict[str, dict[str, Any]]:
        """Return what ``docker inspect`` says of each service's container, stopped ones included."""
        label = f"label=com.docker.compose.project={self.project}"
        identifiers = self.must("docker", "ps", "--all", "--quiet", "--filter", label).split()
        if not identifiers:
            return {}
        found: list[dict[str, Any]] = json.loads(self.must("docker", "inspect", *identifiers))
        return {entry["Config"]["Labels"]["com.docker.compose.service"]: entry for entry in found}

    def health(self, service: str) -> str:
        """Return a service's health as Docker has it; its state where there is none."""
        container = self.containers().get(service)
        if container is None:
            return "absent"
        state = container["State"]
        return str(state["Health"]["Status"] if state["Running"] and "Health" in state else state["Status"])

    def log(self, service: str) -> str:
        """Return a service's log."""
        result = self.compose("logs", "--no-log-prefix", "--no-color", service)
        return result.stdout + result.stderr

    def backups(self) -> list[dict[str, Any]]:
        """Return the backups as ``pgbackrest info`` lists them."""
        printed = self.must(
            "docker", "compose", "exec", "-T", "pgbackrest", "pgbackrest", "info", "--output=json",
            "--log-level-console=off",
        )  # fmt: skip
        backups: list[dict[str, Any]] = json.loads(printed)[0]["backup"]
        return backups

    def close(self) -> None:
        """Remove containers, networks and volumes, also those that a killed command left."""
        self.compose("--profile", "restore", "down", "--volumes", "--remove-orphans", "--timeout", "1")
        label = f"label=com.docker.compose.project={self.project}"
        for kind, listing in (("container", ["--all"]), ("volume", []), ("network", [])):
            left = self.run("docker", kind, "ls", *listing, "--quiet", "--filter", label).stdout.split()
            if left:
                self.run("docker", kind, "rm", "--force", *left)


@contextmanager
def deployment(**settings: str) -> Iterator[Deployment]:
    """Give a deployment that is not up yet, and take all of it away at the end."""
    with tempfile.TemporaryDirectory(prefix="iopt-", dir="/tmp") as directory:
        self = Deployment(Path(directory), settings)
        try:
            yield self
        finally:
            self.close()


@contextmanager
def running(**settings: str) -> Iterator[Deployment]:
    """Give a deployment that is up and has its first backup."""
    with deployment(**settings) as self:
        result = self.control("up")
        assert result.returncode == 0, result.stdout + result.stderr
        wait_for(self.backups, what="the first backup")
        yield self
