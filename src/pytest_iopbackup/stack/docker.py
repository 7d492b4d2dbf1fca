"""Docker's command line: what runs in a container, and what a Compose project has left."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pytest_iopbackup.errors import CommandError, DeadlineError, MachineError
from pytest_iopbackup.limits import wait_until
from pytest_iopbackup.stack.base import CommandResult, LineListener
from pytest_iopbackup.stack.host import run_program

COMPOSE_OLDEST = (2, 20)
"""The first release that knows ``depends_on: required``, which compose.yaml needs."""
PROJECT_FILE = "compose-project"
"""In a stack's directory: its project's name, written first, so that whatever a killed run leaves can be removed."""
KEPT = "KEPT"
"""A file in a stack's directory: it stays when its run ends."""
LABEL = "com.docker.compose.project"
_PROJECT = f"label={LABEL}"
_SECONDS = 60.0


def docker(
    *argv: str,
    timeout: float = _SECONDS,
    check: bool = True,
    listener: LineListener | None = None,
) -> CommandResult:
    """Run a command of Docker's client as ourselves, with our environment."""
    return run_program(
        ["docker", *argv],
        cwd=Path("/"),
        env=os.environ,
        timeout=timeout,
        check=check,
        listener=listener,
        as_account=False,
    )


def find_docker() -> Mapping[str, str]:
    """Return the versions of Docker's engine and of Compose. Raises MachineError, listing what was checked."""
    hint = (
        "install Docker with its Compose plugin and start it, or name its socket in DOCKER_HOST; your user must be "
        "root or in the group 'docker'"
    )
    checked = []
    try:
        engine = docker("version", "--format", "{{.Server.Version}}", check=False)
    except MachineError:
        raise MachineError("Docker not found. Checked: 'docker' on PATH: not there", hint=hint) from None
    if engine.exit_code:
        checked.append("'docker version': " + " ".join(engine.stderr.split()))
    compose = docker("compose", "version", "--short", check=False)
    numbers = tuple(int(number) for number in re.findall(r"\d+", compose.stdout)[:2])
    if compose.exit_code or numbers < COMPOSE_OLDEST:
        checked.append(
            f"'docker compose version': {' '.join((compose.stdout or compose.stderr).split())}, not 2.20 or newer"
        )
    if checked:
        raise MachineError(f"Docker cannot be used. Checked: {'; '.join(checked)}", hint=hint)
    return {"docker": engine.stdout.strip(), "compose": compose.stdout.strip()}


def inspect(container: str) -> Mapping[str, Any]:
    """Return what ``docker inspect`` says of a container."""
    found: list[dict[str, Any]] = json.loads(docker("container", "inspect", container).stdout)
    return found[0]


def pause(container: str, limit: float) -> None:
    """Freeze all processes of a container. Raises CommandError, DeadlineError.

    On a busy machine the runtime may not catch up with processes that come and go: it says "unable to freeze", and has
    let all of them go on.
    """

    def paused() -> bool:
        done = docker("pause", container, check=False)
        if done.exit_code and "unable to freeze" not in done.stderr:
            raise CommandError(done)
        return done.exit_code == 0

    wait_until(paused, limit=limit, what=f"container {container} to be paused", hint="is the machine overloaded?")


def enter(container: str, *argv: str, timeout: float) -> None:
    """Run a program as root in a container's mounts, which its own processes cannot change. Raises CommandError."""
    like = inspect(container)["Config"]
    rights = [f"--cap-add={name}" for name in ("SYS_ADMIN", "SYS_PTRACE")]
    label = f"--label={LABEL}={like['Labels'][LABEL]}"
    docker(
        "run", "--rm", "--user=0", "--network=none", f"--pid=container:{container}", *rights, label,
        "--security-opt=apparmor=unconfined", "--entrypoint=nsenter", like["Image"], "--target=1", "--mount", *argv,
        timeout=timeout,
    )  # fmt: skip


def remove_projects(directory: Path) -> None:
    """Remove containers, volumes and networks of every stack in ``directory``: its own, or those in its subdirectories.

    Kept stacks stay. Raises MachineError or CommandError where Docker does not answer.
    """
    for file in (*directory.glob(PROJECT_FILE), *directory.glob(f"*/{PROJECT_FILE}")):
        if (file.parent / KEPT).exists():
            continue
        _remove_project(file.read_text(encoding="utf-8"))
        file.unlink()


def _remove_project(name: str) -> None:
    for kind, listing, removal in (
        ("container", ["--all"], ["--force", "--volumes"]),
        ("volume", [], ["--force"]),
        ("network", [], []),
    ):
        left = docker(kind, "ls", *listing, "--quiet", "--filter", f"{_PROJECT}={name}").stdout.split()
        if left:
            docker(kind, "rm", *removal, *left)


@dataclass(frozen=True, slots=True)
class ContainerHost:
    """A service's container."""

    name: str
    container: str

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float,
        check: bool = True,
        env: Mapping[str, str] | None = None,
        listener: LineListener | None = None,
    ) -> CommandResult:
        """See :class:`~pytest_iopbackup.stack.base.Host`.

        Ended inside the container, too, when its time is over. ``PGBACKREST_FREQUENCY`` is the worker's own: pgBackRest
        takes every such variable for an option of its own, and warns.
        """
        options = [part for name, value in (env or {}).items() for part in ("--env", f"{name}={value}")]
        inside = ["env", "--unset=PGBACKREST_FREQUENCY", "timeout", "--kill-after=5", f"{timeout:.3f}"]
        result = docker(
            "exec", *options, self.container, *inside, *argv, timeout=timeout + 20, check=False, listener=listener
        )
        result = replace(result, argv=tuple(argv))
        if result.exit_code in {124, 137} and result.seconds >= timeout:  # timeout(1): ended, killed
            raise DeadlineError(
                f"{' '.join(argv)} in {self.name}: still running after {timeout:g} s, ended",
                hint="raise --iop-timeout-scale if the machine is slow; otherwise see the stack's logs",
            )
        if check and result.exit_code != 0:
            raise CommandError(result)
        return result

    def read(self, path: Path) -> bytes:
        """See :class:`~pytest_iopbackup.stack.base.Host`."""
        result = docker("exec", self.container, "cat", str(path), check=False)
        if "No such file" in result.stderr:
            raise FileNotFoundError(path)
        if result.exit_code:
            raise CommandError(result)
        return result.stdout.encode()


@dataclass(frozen=True, slots=True)
class Surgeon(ContainerHost):
    """A container for one program, as root and with Docker's usual capabilities, on the volumes of ``container``."""

    volumes: tuple[str, ...] = ()
    """Options that mount more."""

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float,
        check: bool = True,
        env: Mapping[str, str] | None = None,
        listener: LineListener | None = None,
    ) -> CommandResult:
        """See :class:`~pytest_iopbackup.stack.base.Host`."""
        like = inspect(self.container)["Config"]
        options = [part for name, value in (env or {}).items() for part in ("--env", f"{name}={value}")]
        options += ["--rm", "--user=0", "--network=none", "--label", f"{LABEL}={like['Labels'][LABEL]}"]
        options += [f"--volumes-from={self.container}", *self.volumes, "--entrypoint=timeout"]
        limit = ["--kill-after=5", f"{timeout:.3f}"]
        result = docker(
            "run", *options, like["Image"], *limit, *argv, timeout=timeout + 20, check=False, listener=listener
        )
        result = replace(result, argv=tuple(argv))
        if check and result.exit_code != 0:
            raise CommandError(result)
        return result
