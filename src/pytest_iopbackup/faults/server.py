"""PostgreSQL itself: down, hanging, full, another one, or no longer what it was when backups were set up."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pytest_iopbackup.errors import ProofError
from pytest_iopbackup.faults import processes
from pytest_iopbackup.faults.base import Expected, Fault
from pytest_iopbackup.faults.common import expire_since, labels
from pytest_iopbackup.faults.site import Site
from pytest_iopbackup.stack.base import Service

if TYPE_CHECKING:
    import psycopg


class PostgresqlDown(Fault):
    """It was shut down in order."""

    name = "postgresql-down"
    title = "PostgreSQL is shut down"
    tags = ("postgresql", "processes")
    expected = Expected(signal="postgresql", reason=r"psql: .*(No such file|refused)")
    writes = False

    def inject(self, site: Site) -> None:
        """Stop it."""
        site.stack.stop(Service.DATABASE)

    def prove(self, site: Site) -> str:
        """Ask whether it answers (``pg_isready``: 2 is no answer)."""
        code = site.run("pg_isready", "--quiet", check=False).exit_code
        if code != 2 or site.stack.running(Service.DATABASE):
            raise ProofError(f"pg_isready ends with exit code {code}")
        return "pg_isready gets no answer"

    def heal(self, site: Site) -> None:
        """Start it."""
        site.start()


class PostgresqlHangs(Fault):
    """The socket accepts, and nobody answers."""

    name = "postgresql-hangs"
    title = "All of PostgreSQL's processes hang: sessions are accepted by the system, and never answered"
    tags = ("postgresql", "processes")
    variables: ClassVar = {"IOP_PROBE_TIMEOUT": "2", "IOP_ARCHIVE_CHECK_TIMEOUT": "4"}
    expected = Expected(signal="postgresql", reason=r"no answer from psql .*within 2 s|timeout expired", within=25)
    writes = False
    stopped: tuple[int, ...] = ()

    def inject(self, site: Site) -> None:
        """Stop the main process first, so that no new one comes."""
        main = processes.postmaster(site)
        self.stopped = (main,)
        processes.send(site, "STOP", main)
        self.stopped += tuple(processes.children(site, main))
        processes.send(site, "STOP", *self.stopped)

    def prove(self, site: Site) -> str:
        """Read the main process's state: sessions may have ended meanwhile."""
        return processes.require_stopped(site, *self.stopped[:1])

    def heal(self, site: Site) -> None:
        """Let them go on, the main process last."""
        processes.send(site, "CONT", *reversed(self.stopped))


class ConnectionsUsedUp(Fault):
    """An application that leaks sessions, as superuser, so that none is reserved."""

    name = "connections-used-up"
    title = "All of PostgreSQL's connections are in use"
    tags = ("postgresql", "resources")
    expected = Expected(signal="postgresql", reason=r"too many clients|remaining connection slots")
    writes = False

    def __init__(self) -> None:
        self._sessions: list[psycopg.Connection[tuple[Any, ...]]] = []
        self._over = threading.Event()
        self._leak = threading.Thread()

    def inject(self, site: Site) -> None:
        """Take each that there is, and each that others give back."""
        self._leak = threading.Thread(target=self._take, args=(site,), daemon=True)
        self._leak.start()

    def _take(self, site: Site) -> None:
        import psycopg  # noqa: PLC0415 - costs 60 ms, which runs without a stack need not pay

        while not self._over.wait(0.01):
            with suppress(psycopg.OperationalError):
                while not self._over.is_set():
                    self._sessions.append(site.stack.connect())

    def prove(self, site: Site) -> str:
        """Try to have one for ourselves."""
        import psycopg  # noqa: PLC0415 - likewise

        try:
            site.stack.connect().close()
        except psycopg.OperationalError as error:
            if "too many clients" in str(error):
                return f"with {len(self._sessions)} sessions: {str(error).splitlines()[0]}"
            raise ProofError(str(error)) from error
        raise ProofError(f"with {len(self._sessions)} sessions there is room for another one")

    def heal(self, site: Site) -> None:
        """Let them go."""
        self._over.set()
        if self._leak.is_alive():
            self._leak.join()
        while self._sessions:
            self._sessions.pop().close()
        site.start()


class AnotherCluster(Fault):
    """As after ``initdb`` into an empty volume: everything runs, and nothing is there."""

    name = "another-cluster"
    title = "Another cluster lies where the database was, with the same settings"
    tags = ("postgresql", "data")
    expected = Expected(signal="configuration", reason=r"repo1 is of the cluster \d+, the server is \d+")
    writes = False

    def inject(self, site: Site) -> None:
        """Take the data directory away, and make a new one in its place."""
        data = site.stack.places.data
        self.known = site.sql("SELECT system_identifier FROM pg_control_system()")[0][0]
        site.stack.stop(Service.DATABASE)
        site.surgery("mv", "-T", str(data), str(_aside(site)))
        site.run("initdb", f"--pgdata={data}", "--username=postgres", "--auth=trust", "--data-checksums", "--no-sync",
                 "--encoding=UTF8", "--locale=C.UTF-8", "--no-instructions")  # fmt: skip
        site.script("""printf "\\ninclude '../conf/postgresql.conf'\\n" >>"$1/postgresql.conf" """, data)
        site.start()

    def prove(self, site: Site) -> str:
        """Ask who it is."""
        argv = ("psql", "--no-psqlrc", "--tuples-only", "--no-align", "--dbname=postgres")
        found = site.run(*argv, "--command=SELECT system_identifier FROM pg_control_system()").stdout.strip()
        if found == str(self.known):
            raise ProofError("it is the same cluster")
        return f"the cluster is {found}, and was {self.known}"

    def heal(self, site: Site) -> None:
        """Put the data directory back."""
        if site.exists(_aside(site)):
            site.stack.stop(Service.DATABASE)
            site.script('rm -rf "$1" && mv -T "$2" "$1"', site.stack.places.data, _aside(site))
        site.start()


def _aside(site: Site) -> Path:
    return site.stack.places.data.with_name("data.aside")


class InRecovery(Fault):
    """As after a restart of the wrong one of two servers: it reads, and waits for WAL that never comes."""

    name = "in-recovery"
    title = "PostgreSQL was started as a standby: it takes no writes"
    tags = ("postgresql", "data")
    expected = Expected(signal="postgresql", reason=r"in recovery: takes no writes")
    writes = False

    def inject(self, site: Site) -> None:
        """Put the file there that makes it one, and restart."""
        data = site.stack.places.data
        site.stack.stop(Service.DATABASE)
        site.run("touch", str(data / "standby.signal"))
        site.start()

    def prove(self, site: Site) -> str:
        """Ask it."""
        if not site.sql("SELECT pg_is_in_recovery()")[0][0]:
            raise ProofError("it is not in recovery")
        return "pg_is_in_recovery() is true"

    def heal(self, site: Site) -> None:
        """Take the file away, and restart."""
        if site.exists(site.stack.places.data / "standby.signal"):
            site.stack.stop(Service.DATABASE)
            site.surgery("rm", "-f", str(site.stack.places.data / "standby.signal"))
        site.start()


class ChecksumsOff(Fault):
    """Nothing else changes; damaged pages now go into backups unseen."""

    name = "data-checksums-off"
    title = "Data checksums were disabled: damaged pages go into backups unseen"
    tags = ("postgresql", "data")
    expected = Expected(signal="configuration", reason=r"data checksums are off")
    silent = True
    before: list[str] | None = None

    def inject(self, site: Site) -> None:
        """Disable them, which takes a stop."""
        self.before = labels(site)
        site.stack.stop(Service.DATABASE)
        _checksums(site, "--disable")
        site.start()

    def prove(self, site: Site) -> str:
        """Read the setting, which follows the control file."""
        if site.setting("data_checksums") != "off":
            raise ProofError("data checksums are on")
        return "data_checksums is off"

    def heal(self, site: Site) -> None:
        """Enable them, and let go of backups whose pages nobody verified."""
        site.start()
        if site.setting("data_checksums") == "off":
            site.stack.stop(Service.DATABASE)
            _checksums(site, "--enable")
            site.start()
        expire_since(site, self.before)


def _checksums(site: Site, change: str) -> None:
    site.run("pg_checksums", change, "--no-sync", f"--pgdata={site.stack.places.data}")


FAULTS: tuple[type[Fault], ...] = (
    PostgresqlDown,
    PostgresqlHangs,
    ConnectionsUsedUp,
    AnotherCluster,
    InRecovery,
    ChecksumsOff,
)
