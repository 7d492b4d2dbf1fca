"""Where a fault is done: a stack, and the ways to work on it that are the same on every kind of stack."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psycopg import sql

from pytest_iopbackup.cluster import pgbackrest
from pytest_iopbackup.errors import ProofError
from pytest_iopbackup.limits import Limits, wait_until
from pytest_iopbackup.record import BackupFacts
from pytest_iopbackup.stack.base import CommandResult, Host, Service, Stack


@dataclass(frozen=True, slots=True)
class Site:
    """A stack as a fault sees it."""

    stack: Stack
    limits: Limits

    def host(self, service: Service = Service.DATABASE) -> Host:
        """Return a service's host: its programs run there with its user's rights."""
        return self.stack.host(service)

    def run(self, *argv: str, service: Service = Service.DATABASE, check: bool = True) -> CommandResult:
        """Run a program where a service runs."""
        return self.stack.host(service).run(argv, timeout=self.limits.command, check=check)

    def surgery(self, *argv: str, check: bool = True) -> CommandResult:
        """Run a program with every right on the stack's places."""
        return self.stack.surgeon().run(argv, timeout=self.limits.command, check=check)

    # PostgreSQL

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        """Run SQL as superuser; return its rows, if it has any."""
        with self.stack.connect() as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def setting(self, name: str) -> str:
        """Return PostgreSQL's running value of a setting."""
        return str(self.sql(f"SELECT current_setting({sql.quote(name)})")[0][0])

    def set(self, name: str, value: str | None) -> None:
        """Set one of PostgreSQL's settings, or reset it, and wait until the server has read it.

        One that takes a restart is then pending.
        """
        change = f"RESET {name}" if value is None else f"SET {name} = {sql.quote(value)}"
        loaded = "SELECT pg_conf_load_time()"
        before = self.sql(loaded)
        self.sql(f"ALTER SYSTEM {change}")
        self.sql("SELECT pg_reload_conf()")
        wait_until(
            lambda: self.sql(loaded) != before,
            limit=self.limits.command,
            what=f"PostgreSQL to take {name} = {value!r}",
        )

    def restart(self) -> None:
        """Restart PostgreSQL, and wait until it takes connections."""
        self.stack.stop(Service.DATABASE)
        self.start()

    def start(self) -> None:
        """Start PostgreSQL, and wait until it takes connections."""
        if not self.stack.running(Service.DATABASE):
            self.stack.start(Service.DATABASE)
        self.await_server()

    def await_server(self) -> None:
        """Wait until PostgreSQL takes connections, whoever has started it."""
        wait_until(self._accepts, limit=self.limits.start, what="PostgreSQL to accept connections")

    def _accepts(self) -> bool:
        return self.run("pg_isready", "--quiet", check=False).exit_code == 0

    def switch_wal(self) -> str:
        """Write something, end the present WAL segment, and return that segment's name."""
        self.sql("SELECT pg_logical_emit_message(true, 'fault', '')")
        return str(self.sql("SELECT pg_walfile_name(pg_switch_wal())")[0][0])

    # The repository

    def backups(self) -> tuple[BackupFacts, ...]:
        """Return the backups that the repository lists, the oldest first."""
        return pgbackrest.info(self.stack, self.limits).backups

    def archive(self) -> Path:
        """Return the directory of the present cluster's archived WAL."""
        found = pgbackrest.info(self.stack, self.limits).archive_id
        if found is None:
            raise ProofError("the repository has no archive of WAL")
        return self.stack.places.repository / "archive" / self.stack.stanza / found

    def archived(self, segment: str) -> Path:
        """Return the file that an archived WAL segment is in. Raises ProofError where there is not exactly one."""
        found = self._files_of(segment)
        if len(found) != 1:
            raise ProofError(f"WAL segment {segment} is in the repository {len(found)} times")
        return found[0]

    def await_archived(self, segment: str) -> Path:
        """Wait until a WAL segment is in the repository, and return its file."""
        pgbackrest.await_archived(self.stack, segment, self.limits)
        wait_until(
            lambda: self._files_of(segment) != [],
            limit=self.limits.archive,
            what=f"WAL segment {segment} to be whole in the repository",
        )
        return self.archived(segment)

    def _files_of(self, segment: str) -> list[Path]:
        return self.files(self.archive() / segment[:16], f"{segment}-*")

    # Files

    def files(self, directory: Path, name: str) -> list[Path]:
        """Return the files below a directory whose name fits a shell's pattern, sorted.

        Not those that pgBackRest is still writing, or has never finished: they go by another name until they are whole.
        """
        half = ("!", "-name", "*.pgbackrest.tmp")
        printed = self.surgery("find", str(directory), "-type", "f", "-name", name, *half).stdout
        return sorted(Path(line) for line in printed.splitlines())

    def exists(self, path: Path) -> bool:
        """Whether there is something at a path."""
        return self.surgery("test", "-e", str(path), check=False).exit_code == 0

    def script(self, script: str, *arguments: Path | str) -> str:
        """Run a shell's script with every right; its arguments are $1, $2, …. Returns what it prints."""
        return self.surgery("sh", "-ec", script, "sh", *map(str, arguments)).stdout

    def keep(self, path: Path) -> None:
        """Save a file or directory, to be put back by :meth:`put_back`; what was saved first stays saved."""
        save = 'mkdir -p "$(dirname "$2")" && cp -a "$1" "$2.part" && mv "$2.part" "$2"'
        self.script(f'[ -e "$2" ] || {{ {save}; }}', path, self.saved(path))

    def take_away(self, path: Path) -> None:
        """Move a file or directory out of the way, to be put back by :meth:`put_back`."""
        self.script(
            '[ -e "$2" ] || { mkdir -p "$(dirname "$2")" && mv -T "$1" "$2"; }',
            path,
            self.saved(path),
        )

    def put_back(self, path: Path) -> None:
        """Put back what was saved, if anything was, at once: programs that run meanwhile see the one or the other."""
        swap = 'rm -rf "$3"; [ ! -e "$1" ] || mv -T "$1" "$3"; mv -T "$2" "$1"; rm -rf "$3"'
        saved = self.saved(path)
        self.script(f'[ ! -e "$2" ] || {{ {swap}; }}', path, saved, f"{saved}.replaced")

    def edit(self, path: Path, change: Callable[[str], str]) -> None:
        """Save a text file, then change it."""
        self.keep(path)
        self.script('printf %s "$2" >"$1"', path, change(self.script('cat "$1"', path)))

    def saved(self, path: Path) -> Path:
        """Return where a file or directory is, or would be, saved."""
        return self.stack.shelter / str(path).strip("/").replace("/", "+")

    # Workers

    def configure(self, **variables: str | None) -> None:
        """Set variables of the deployed system, or unset those that are None; the workers take them up."""
        self.stack.configure(variables)
