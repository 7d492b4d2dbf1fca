"""A PostgreSQL server, a repository and a copy of ``pgbackrest/``, wired up by environment variables alone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

SCRIPTS = Path(__file__).parents[2] / "pgbackrest"
CHECKS = (
    "repository",
    "postgresql",
    "configuration",
    "wal-archiving",
    "archiver",
    "wal-chain",
    "backups",
    "verify",
    "space",
    "workers",
)
USER = "postgres" if os.geteuid() == 0 else None  # PostgreSQL and pgBackRest refuse root


def wait_for(condition: Callable[[], object], seconds: float = 10) -> float:
    """Poll until the condition holds; return the seconds that it took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, f"still not true after {seconds} s"
        time.sleep(0.02)
    return time.monotonic() - started


class System:
    """Everything below one short directory. ``environment`` is what Compose would set; tests override it per call."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.scripts = root / "pgbackrest"
        self.data = root / "data"
        self.repository = root / "repo"
        self.state = root / "state"
        self.mark = uuid4().hex
        binaries = shutil.which("initdb") or max(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        self.environment = {
            "PATH": f"{Path(binaries).resolve().parent}:{os.environ['PATH']}",
            "LC_ALL": "C.UTF-8",
            "PGHOST": str(root),
            "PGPORT": "5432",
            "PGUSER": "postgres",
            "PGDATABASE": "postgres",
            "PGDATA": str(self.data),
            "PGBACKREST_CONFIG": str(self.scripts / "pgbackrest.conf"),
            "PGBACKREST_PG1_PATH": str(self.data),
            "PGBACKREST_PG1_SOCKET_PATH": str(root),
            "PGBACKREST_PG1_USER": "postgres",
            "PGBACKREST_REPO1_PATH": str(self.repository),
            "PGBACKREST_SPOOL_PATH": str(root / "spool"),
            "PGBACKREST_LOCK_PATH": str(root / "lock"),
            "PGBACKREST_ARCHIVE_TIMEOUT": "15",
            "IOP_STATE_PATH": str(self.state),
            "IOP_TEST_MARK": self.mark,
        }

    def run(self, *argv: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a program to its end."""
        return subprocess.run(
            argv,
            env={**self.environment, **environment},
            user=USER,
            group=USER,
            extra_groups=[] if USER else None,
            cwd=self.root,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def must(self, *argv: str | Path, **environment: str) -> str:
        """Run a program that has to succeed; return what it printed."""
        result = self.run(*argv, **environment)
        assert result.returncode == 0, f"{argv}: exit code {result.returncode}\n{result.stdout}{result.stderr}"
        return result.stdout

    @contextmanager
    def started(self, *argv: str | Path, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
        """Start a program; at the end, kill it and everything that carries its mark."""
        mark = uuid4().hex
        process = subprocess.Popen(
            argv,
            env={**self.environment, **environment, "IOP_TEST_MARK": mark},
            user=USER,
            group=USER,
            extra_groups=[] if USER else None,
            cwd=self.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            yield process, mark
        finally:
            deadline = time.monotonic() + 10
            while True:  # one that is just starting a program has no environment that could be read
                for pid in marked(mark):
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                try:
                    process.communicate(timeout=0.2)
                    break
                except subprocess.TimeoutExpired:
                    if time.monotonic() > deadline:
                        raise

    def sql(self, statement: str) -> str:
        """Run a statement."""
        return self.must("psql", "-XAtqc", statement).strip()

    def postgres(self, action: str) -> None:
        """Start, stop, restart or reload the server."""
        self.must(
            "pg_ctl", "--pgdata", self.data, "--wait", "--mode=fast", "--log", self.root / "postgresql.log", action
        )

    def check(self, **environment: str) -> tuple[int, dict[str, dict[str, Any]]]:
        """Run check.sh; return its exit code and the results by name, after comparing text and JSON."""
        (self.state / "check-status.json").unlink(missing_ok=True)
        result = self.run(self.scripts / "check.sh", **environment)
        report = json.loads((self.state / "check-status.json").read_text())
        lines = result.stdout.splitlines()
        assert [line.split()[:2] for line in lines] == [[c["status"].upper(), c["name"]] for c in report["checks"]]
        assert [c["name"] for c in report["checks"]] == list(CHECKS)
        return result.returncode, {check["name"]: check for check in report["checks"]}

    def create_stanza(self) -> None:
        """Run stanza-create. It does not wait for its lock (error 50), which an asynchronous push may hold."""
        create = ("pgbackrest", "--stanza=iop", "stanza-create")
        wait_for(lambda: self.run(*create).returncode != 50)
        self.must(*create)  # changes nothing where it has succeeded

    def backups(self) -> list[dict[str, Any]]:
        """Return the backups as ``pgbackrest info`` lists them."""
        printed = self.must("pgbackrest", "--stanza=iop", "info", "--output=json")
        backups: list[dict[str, Any]] = json.loads(printed)[0]["backup"]
        return backups

    def inventory(self) -> Mapping[str, tuple[int, int]]:
        """Return size and modification time of each file in the repository."""
        files = (path for path in self.repository.rglob("*") if path.is_file())
        return {
            str(path.relative_to(self.repository)): (path.stat().st_size, path.stat().st_mtime_ns) for path in files
        }

    def program(self, name: str, text: str) -> str:
        """Put a shell script in front of the program of that name, ``$real``; return the PATH that finds it."""
        directory = self.root / f"bin-{uuid4().hex[:8]}"
        directory.mkdir()
        (directory / name).write_text(f"#!/bin/bash\nreal={shutil.which(name)}\n{text}\n")
        (directory / name).chmod(0o755)
        directory.chmod(0o755)
        return f"{directory}:{self.environment['PATH']}"


def statuses(checks: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return the status of each check."""
    return {name: check["status"] for name, check in checks.items()}


def all_but(**differing: str) -> dict[str, str]:
    """Return the statuses of a healthy system, changed."""
    return {**dict.fromkeys(CHECKS, "ok"), **{name.replace("_", "-"): status for name, status in differing.items()}}


def marked(mark: str) -> list[int]:
    """Return the living processes that were started, however indirectly, with this mark in their environment."""
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if f"IOP_TEST_MARK={mark}".encode() in environ.read_bytes():
                found.append(int(environ.parent.name))
    return found


def runs(mark: str, words: bytes) -> bool:
    """Tell whether one of those has this in its command line; words are parted by NUL there."""
    for pid in marked(mark):
        with suppress(OSError):  # it may have ended meanwhile
            if words in Path(f"/proc/{pid}/cmdline").read_bytes():
                return True
    return False


@contextmanager
def system(*options: str) -> Iterator[System]:
    """Bring a server, made with these options of initdb, and an empty repository up; take all away at the end."""
    with tempfile.TemporaryDirectory(prefix="iop-") as directory:
        self = System(Path(directory))
        shutil.copytree(SCRIPTS, self.scripts, ignore=shutil.ignore_patterns("__pycache__"))
        if USER:
            shutil.chown(self.root, USER, USER)
        self.must("mkdir", "--mode=750", self.repository, self.state, self.root / "spool")
        self.must("initdb", "--data-checksums", "--no-sync", "--auth=trust", "--username=postgres", *options, self.data)
        with (self.data / "postgresql.conf").open("a") as file:
            file.write(f"listen_addresses = ''\nunix_socket_directories = '{self.root}'\nfsync = off\n")
            file.write(f"include = '{self.scripts}/postgresql.conf'\n")
        try:
            self.postgres("start")
            self.create_stanza()
            yield self
        finally:
            self.run("pg_ctl", "--pgdata", self.data, "--wait", "--mode=immediate", "stop")
            # The asynchronous push ends by itself, a moment after the server.
            wait_for(lambda: not marked(self.mark))
