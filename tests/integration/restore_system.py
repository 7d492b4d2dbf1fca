"""A system with a history, and the ways to restore it: for the tests of ``restore.sh``."""

from __future__ import annotations

import hashlib
import json
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgbackrest_system import System, marked, system, wait_for

TOKEN = "I_UNDERSTAND_THIS_WILL_DELETE_DATABASE_DATA"


def inventory(*places: Path) -> dict[str, tuple[int, str]]:
    """Return mode and content of each file, and the mode of each directory."""
    found = {}
    for place in places:
        for path in (place, *place.rglob("*")) if place.exists() else ():
            content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
            found[str(path)] = (path.lstat().st_mode, content)
    return found


@dataclass(frozen=True, slots=True)
class Commit:
    """Row ``n`` and the transaction that made it."""

    n: int
    xid: int
    time: str
    after: str
    """LSN at which WAL went on after it."""
    segment: str


@dataclass
class Restoring:
    """The system as it is after its history, the server stopped; ``reset`` brings that state back."""

    system: System
    commits: dict[int, Commit]

    @property
    def marker(self) -> Path:
        return Path(f"{self.system.data}.restore")

    @property
    def stage(self) -> str | None:
        return str(json.loads(self.marker.read_text())["stage"]) if self.marker.exists() else None

    @property
    def labels(self) -> list[str]:
        return [str(backup["label"]) for backup in self.system.backups()]

    def commit(self, n: int) -> None:
        """Insert a row, and note the transaction."""
        sql = self.system.sql
        xid = sql(f"INSERT INTO t VALUES ({n}) RETURNING pg_current_xact_id()")
        time = f"to_char(pg_xact_commit_timestamp('{xid}'::xid) AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')"
        place = "pg_current_wal_insert_lsn()"
        at, after, segment = sql(f"SELECT {time}, {place}, pg_walfile_name({place})").split("|")
        self.commits[n] = Commit(n, int(xid), f"{at}+00", after, segment)

    def point(self, name: str) -> str:
        """Create a restore point; return its LSN."""
        return self.system.sql(f"SELECT pg_create_restore_point('{name}')")

    def backup(self) -> None:
        """Take a backup, and wait until a time after it cannot be in its last second."""
        self.system.must(self.system.scripts / "backup.sh")
        stopped = self.system.backups()[-1]["timestamp"]["stop"]
        wait_for(lambda: self.system.sql(f"SELECT floor(extract(epoch FROM clock_timestamp())) > {stopped}") == "t")

    def stop(self, mode: str = "fast") -> None:
        """Stop the server, if it is up, and wait until nothing of it is left."""
        self.system.run("pg_ctl", "--pgdata", self.system.data, "--wait", f"--mode={mode}", "stop")
        wait_for(lambda: not marked(self.system.mark))

    def places(self) -> list[Path]:
        """Return what a restore works on, without the lock."""
        root = self.system.root
        return [self.system.data, self.system.repository, self.marker, root / "data.unarchived"]

    def save(self) -> None:
        """Keep the present state for ``reset``."""
        self.stop()
        for name in ("data", "repo", "spool"):
            self.system.must("cp", "-a", self.system.root / name, self.system.root / f"saved-{name}")

    def reset(self) -> None:
        """Bring the saved state back."""
        self.stop("immediate")
        for path in self.places():
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        shutil.rmtree(self.system.root / "spool")
        for name in ("data", "repo", "spool"):
            self.system.must("cp", "-a", self.system.root / f"saved-{name}", self.system.root / name)

    def sh(self, action: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run restore.sh with the token."""
        return self.system.run(self.system.scripts / "restore.sh", action, TOKEN, *words, **environment)

    def must(self, action: str, *words: str, **environment: str) -> str:
        """Run restore.sh, which has to succeed; return what it printed."""
        return self.system.must(self.system.scripts / "restore.sh", action, TOKEN, *words, **environment)

    def restore(self, *words: str) -> list[int]:
        """Carry a whole restore out, as control.sh does; return the rows."""
        assert self.must("plan", *words) == "wipe\n"
        self.stop()
        self.must("wipe")
        self.must("restore", *words)
        rows = self.recover()
        self.must("finish")
        return rows

    def recover(self) -> list[int]:
        """Start the server, wait for the end of recovery, and return the rows."""
        self.system.postgres("start")
        wait_for(lambda: self.system.sql("SELECT pg_is_in_recovery()") == "f", 20)
        return [int(n) for n in self.system.sql("SELECT n FROM t ORDER BY n").split()]

    def replan(self, *words: str) -> Any:
        """Plan, and return the options that were chosen."""
        self.must("plan", *words)
        return json.loads(self.marker.read_text())["options"]


def archived(restoring: Restoring, segment: str) -> Path:
    """Return the file of a segment in the archive."""
    return next((restoring.system.repository / "archive" / "iop").rglob(f"{segment}-*"))


def make_read_only(place: Path, *, writable: bool = False) -> None:
    """Take the right to write away from everything in a directory, or give it back."""
    for path in (place, *place.rglob("*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        path.chmod(mode | stat.S_IWUSR if writable else mode & ~0o222)


@contextmanager
def history(*options: str) -> Iterator[Restoring]:
    """Make rows 1 to 7 with a full backup before them and a differential one before row 6."""
    with system(*options) as new:
        restoring = Restoring(new, {})
        new.sql("ALTER SYSTEM SET autovacuum = off")
        new.postgres("reload")
        new.sql("CREATE TABLE t (n int)")
        restoring.backup()
        restoring.commit(1)
        restoring.point("one")
        new.sql("SELECT pg_switch_wal()")
        restoring.commit(2)
        restoring.point("twice")
        new.sql("SELECT pg_switch_wal()")
        restoring.commit(3)
        restoring.point("twice")
        restoring.commit(4)
        restoring.commit(5)
        restoring.backup()
        restoring.commit(6)
        restoring.point("six")
        new.sql("SELECT pg_switch_wal()")
        restoring.commit(7)
        restoring.save()
        yield restoring
        restoring.stop()
