"""PostgreSQL servers of a test's own, without a stack around them."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from pytest_iopbackup.stack.binaries import find_binaries
from pytest_iopbackup.stack.host import account


@dataclass(frozen=True)
class Server:
    """A PostgreSQL of its own on a Unix socket."""

    bin: Path
    root: Path
    settings: tuple[str, ...] = ()

    @property
    def data(self) -> Path:
        return self.root / "data"

    def run(self, program: str, *arguments: str) -> None:
        argv = [str(self.bin / program), "-D", str(self.data), *arguments]
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, cwd="/", timeout=60, **account().popen_arguments)

    def start(self) -> None:
        places = ("listen_addresses=", f"unix_socket_directories={self.root}", "fsync=off", "autovacuum=off")
        options = " ".join(f"-c {setting}" for setting in (*places, *self.settings))
        self.run("pg_ctl", "-w", "-l", str(self.root / "log"), "-o", options, "start")

    def stop(self, mode: str = "fast") -> None:
        self.run("pg_ctl", "-w", "-m", mode, "stop")

    def connect(self, dbname: str = "postgres", **arguments: Any) -> psycopg.Connection[Any]:
        wanted = {"user": "postgres", "autocommit": True, **arguments}
        return psycopg.connect(host=str(self.root), dbname=dbname, **wanted)


@contextmanager
def new_server(*settings: str) -> Iterator[Server]:
    """Make a cluster, start it, with settings if need be, and remove it afterwards."""
    with _place() as root:
        made = Server(find_binaries().postgresql, root, settings)
        made.run("initdb", "-k", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync")
        made.start()
        try:
            yield made
        finally:
            made.stop("immediate")


@contextmanager
def copied(stopped: Server) -> Iterator[Server]:
    """Copy a cluster whose server is stopped; the copy is not started."""
    with _place() as root:
        subprocess.run(["cp", "-a", str(stopped.data), str(root)], check=True)
        yield Server(stopped.bin, root)


@contextmanager
def _place() -> Iterator[Path]:
    root = Path(tempfile.mkdtemp(prefix="iop-"))
    try:
        account().own(root)
        yield root
    finally:
        shutil.rmtree(root)
