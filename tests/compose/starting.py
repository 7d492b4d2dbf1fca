"""Starts a deployment with Docker Compose alone: what compose.yaml promises has to hold without control.sh, too."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from deployment import Deployment, deployment

SERVICES = ("database", "pgbackrest", "pgbackrest_backup", "pgbackrest_check")


def write_password(self: Deployment, password: str) -> None:
    """Write the superuser's password as control.sh does: readable for the containers' user, in a closed directory."""
    directory = self.directory / "secrets"
    directory.mkdir(mode=0o700, exist_ok=True)
    directory.chmod(0o700)
    (directory / "database_password").write_text(password)
    (directory / "database_password").chmod(0o444)


@contextmanager
def deployed(**settings: str) -> Iterator[Deployment]:
    """Give a deployment with a password, that is not up yet."""
    with deployment(**settings) as self:
        write_password(self, f"{secrets.token_hex(16)}\n")
        yield self


def up(self: Deployment, *services: str) -> None:
    """Bring services up, and wait until they are healthy."""
    self.must("docker", "compose", "up", "--detach", "--wait", *services)


def told(container: Mapping[str, Any]) -> str:
    """Return what the last health check of a container said."""
    log = container["State"].get("Health", {}).get("Log") or [{"Output": ""}]
    return str(log[-1]["Output"])
