"""Archived WAL that is wrong although it has the checksum in its name: it was wrong when that was made."""

from __future__ import annotations

from pathlib import Path

from pytest_iopbackup.errors import ProofError
from pytest_iopbackup.faults import processes
from pytest_iopbackup.faults.base import Expected, Fault
from pytest_iopbackup.faults.corruption import FLIP
from pytest_iopbackup.faults.site import Site


def fetch(site: Site, segment: str) -> Path:
    """Return a copy of an archived segment, as a restore gets it; :func:`discard` removes it."""
    copy = _fetched(site) / segment
    site.run("mkdir", "-p", str(copy.parent))
    site.run("pgbackrest", "archive-get", segment, str(copy))
    return copy


def discard(site: Site) -> None:
    """Remove what was fetched, if anything was."""
    site.surgery("rm", "-rf", str(_fetched(site)))


def _fetched(site: Site) -> Path:
    return site.stack.places.state / "fetched"


class WalRotsBeforePush(Fault):
    """A disk or memory that fails: archive-push makes its checksum of what it reads."""

    name = "wal-rots-before-push"
    title = "A byte of WAL goes wrong before it is archived, under a checksum that is right: a restore ends there"
    tags = ("corruption", "wal")
    silent = True
    loses_window = True
    expected = Expected(signal="wal-chain", reason=r"WAL is damaged: 0\w+ \(recovery ends at \w+/\w+: ", within=20)

    def __init__(self) -> None:
        self._archiver: tuple[int, ...] = ()
        self._file: Path | None = None

    def inject(self, site: Site) -> None:
        """Stop the archiver while a byte in the middle of a record changes."""
        site.await_archived(site.switch_wal())  # so that what follows is in one segment
        self._archiver = (processes.backend(site, "archiver"),)
        processes.send(site, "STOP", *self._archiver)
        site.sql("SELECT pg_logical_emit_message(true, 'fault', 'before')")
        message = "pg_logical_emit_message(true, 'fault', repeat('x', 4000))"
        segment, end = site.sql(f"SELECT file_name, file_offset FROM pg_walfile_name_offset({message})")[0]
        site.switch_wal()
        site.script(FLIP, site.stack.places.data / "pg_wal" / segment, str(end - 2000))
        processes.send(site, "CONT", *self._archiver)
        self._file = site.await_archived(segment)

    def prove(self, site: Site) -> str:
        """Let pg_waldump read what is archived."""
        if self._file is None:
            raise ProofError("nothing is archived")
        copy = fetch(site, self._file.name[:24])
        said = site.surgery("pg_waldump", "--stats", str(copy), check=False).stderr
        if "incorrect resource manager data checksum" not in said:
            raise ProofError(f"pg_waldump reads {self._file.name}: {said.strip()}")
        return " ".join(said.split())

    def heal(self, site: Site) -> None:
        """Let the archiver go on; what is archived stays as it is."""
        processes.send(site, "CONT", *self._archiver)
        discard(site)


class WalOfAnotherCluster(Fault):
    """Two clusters that archived into one place, or a copy by hand: the name is right, and what is in it."""

    name = "wal-of-another-cluster"
    title = "An archived WAL segment is another cluster's, under a checksum that is right: a restore ends there"
    tags = ("corruption", "wal")
    silent = True
    expected = Expected(signal="wal-chain", reason=r"WAL is damaged: 0\w+ \(is of another cluster, \d+\)", within=20)

    def __init__(self) -> None:
        self._file: Path | None = None
        self._foreign: Path | None = None

    def inject(self, site: Site) -> None:
        """Change the system identifier in a segment (8 bytes, 24 after its beginning), and name it by its checksum."""
        self._file = file = site.await_archived(site.switch_wal())
        site.await_archived(site.switch_wal())
        copy = fetch(site, file.name[:24])
        site.script(FLIP, copy, "26")
        digest = site.script('sha1sum "$1"', copy)[:40]
        self._foreign = foreign = file.with_name(f"{file.name[:24]}-{digest}")  # not compressed, which is as good
        site.script('cp --attributes-only -p "$3" "$1"; mv "$1" "$2.part"', copy, foreign, file)
        site.take_away(file)
        site.script('mv "$1.part" "$1"', foreign)

    def prove(self, site: Site) -> str:
        """See that it is there, and the right one is not."""
        if not (self._file and self._foreign and site.exists(self._foreign)) or site.exists(self._file):
            raise ProofError("the segment is as it was")
        return f"{self._foreign.name} is there instead of {self._file.name}"

    def heal(self, site: Site) -> None:
        """Put the right one back."""
        discard(site)
        if self._foreign:
            site.script('rm -f "$1" "$1.part"', self._foreign)
        if self._file:
            site.put_back(self._file)


FAULTS: tuple[type[Fault], ...] = (
    WalRotsBeforePush,
    WalOfAnotherCluster,
)
