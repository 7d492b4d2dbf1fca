"""The expected state of a database, kept outside it: the database may be gone when it is needed.

A capture is a directory::

    capture.json     digests, catalog objects, sequences; written last, so that half a capture is none
    fast.json        what :mod:`learned` has noted of restores that were equal; may be missing
    sketch/0007      of the seventh table, at most 200 KB: all of its rows in brief, or a sketch of them, which names
                     those that differ; read only if the table does

The keys are data, and in a table without a primary key they are the rows themselves: the directory is for its
owner alone.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import cattrs
from psycopg.pq import TransactionStatus

from pytest_iopbackup.errors import MachineError, ProofError
from pytest_iopbackup.proof.catalog import CatalogObject, catalog_objects
from pytest_iopbackup.proof.readers import Shared, readers, share
from pytest_iopbackup.proof.rowset import Method, RowSet, Table, method, user_tables
from pytest_iopbackup.proof.sequences import SequenceState, behind_columns, read_states
from pytest_iopbackup.proof.session import Connection, Cursor, reading
from pytest_iopbackup.proof.sketching import Layout
from pytest_iopbackup.proof.taking import Content, take
from pytest_iopbackup.proof.taking import load as load_content

Progress = Callable[[int, int], None]
"""Called with what is done and what there is in all: tables of a capture, rows of a comparison."""

FORMAT = 4
"""Grows when a capture written before could be misread."""

_converter = cattrs.Converter(forbid_extra_keys=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What was kept of a table: how to read it, and the SHA-256 of its file."""

    layout: Layout
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """What must be there after a restore."""

    directory: Path
    method: Method
    seal: str
    """A key, in hex, for what is learned later of restores to this state."""
    tables: tuple[RowSet, ...]
    sketches: tuple[Kept, ...]
    """Of each table, in the same order."""
    skipped: Mapping[str, str]
    """Tables whose rows are not compared, and why."""
    objects: tuple[CatalogObject, ...]
    sequences: tuple[SequenceState, ...]
    behind: Mapping[str, str] = field(default_factory=dict)
    """Sequences that their column had passed already; then that is no fault of a restore."""

    @property
    def algorithm(self) -> str:
        """What the digests were made with, for a report."""
        return f"{self.method.algorithm} on PostgreSQL {self.method.server}"

    @property
    def rows(self) -> int:
        """Rows in all tables."""
        return sum(table.rows for table in self.tables)

    def sketch(self, table: str) -> tuple[Content, Layout]:
        """Read what was kept of a table's rows; ProofError if it was changed since: names from it would be lies."""
        number = next(number for number, rows in enumerate(self.tables) if rows.table == table)
        path, kept = _sketch_file(self.directory, number), self.sketches[number]
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ProofError(
                f"the sketch of {table} cannot be read, so no row can be named: {error}", hint="capture the state again"
            ) from error
        if hashlib.sha256(content).hexdigest() != kept.sha256:
            raise ProofError(
                f"the sketch of {table} was changed since it was written, so no row can be named: {path}",
                hint="capture the state again",
            )
        return load_content(kept.layout, content), kept.layout


def capture(
    connection: Connection,
    directory: Path,
    progress: Progress | None = None,
    *,
    sequences: tuple[SequenceState, ...] | None = None,
    shared: Shared | None = None,
) -> Capture:
    """Read the whole database behind ``connection`` and keep in ``directory`` what a comparison will need.

    For an exact mark on a database that is written to: import the mark's snapshot on ``connection`` (REPEATABLE READ)
    first, and pass the ``sequences`` read under its locks, since sequences follow no snapshot. TRUNCATE and
    ALTER TABLE do not respect snapshots either: whoever exports the snapshot keeps ACCESS SHARE locks until this ends.
    ``shared`` is the transaction's own snapshot, for more connections to read in; an idle one exports its own.

    Raises ProofError when anything cannot be read or ``directory`` holds a capture already, MachineError when the
    files cannot be written.
    """
    if (directory / "capture.json").exists():
        raise ProofError(f"{directory} holds a capture already", hint="give each capture a directory of its own")
    try:
        (directory / "sketch").mkdir(parents=True, exist_ok=True)
        directory.chmod(0o700)
        idle = connection.info.transaction_status == TransactionStatus.IDLE
        with reading(connection) as cursor:
            taken = _take(cursor, directory, progress, sequences, share(connection) if idle else shared)
        _save(taken)
    except OSError as error:
        raise MachineError(
            f"the expected state cannot be kept: {error}", hint=f"see to space and permissions in {directory}"
        ) from error
    return taken


def _take(
    cursor: Cursor,
    directory: Path,
    progress: Progress | None,
    sequences: tuple[SequenceState, ...] | None,
    shared: Shared | None,
) -> Capture:
    tables = user_tables(cursor)
    compared = [table for table in tables if table.skipped is None]
    every = readers(cursor, compared, shared)
    numbers = {table.name: number for number, table in enumerate(compared)}

    @contextmanager
    def opened(cursor: Cursor) -> Iterator[Callable[[Table], tuple[RowSet, Kept]]]:
        def keep(table: Table) -> tuple[RowSet, Kept]:
            taken = take(cursor, table, every.sizes[table.name].own, every.shared_for(table))
            content = taken.content.dump()
            _sketch_file(directory, numbers[table.name]).write_bytes(content)
            return taken.rows, Kept(layout=taken.layout, sha256=hashlib.sha256(content).hexdigest())

        yield keep

    left = set(numbers)

    def done(table: Table) -> None:
        left.discard(table.name)
        if progress is not None:
            progress(len(compared) - len(left), len(compared))

    kept = every.read(opened, done)
    states = read_states(cursor) if sequences is None else sequences
    return Capture(
        directory=directory,
        method=method(cursor),
        seal=secrets.token_hex(32),
        tables=tuple(kept[table.name][0] for table in compared),
        sketches=tuple(kept[table.name][1] for table in compared),
        skipped={table.name: table.skipped for table in tables if table.skipped is not None},
        objects=catalog_objects(cursor),
        sequences=states,
        behind=behind_columns(cursor, states),
    )


def load(directory: Path) -> Capture:
    """Read a capture back; ProofError if there is none, or another version of this package wrote it."""
    path = directory / "capture.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("format") != FORMAT:
            raise ProofError(f"{path} has another format than {FORMAT}", hint="capture the state again")
        return _converter.structure({**content, "directory": str(directory)}, Capture)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, cattrs.BaseValidationError) as error:
        raise ProofError(f"no usable capture in {directory}: {error}", hint="capture the state again") from error


def _save(taken: Capture) -> None:
    content = {"format": FORMAT, **_converter.unstructure(taken)}
    del content["directory"]  # where it is then, not where it was
    path = taken.directory / "capture.json"
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content), encoding="utf-8")
    part.replace(path)


def _sketch_file(directory: Path, number: int) -> Path:
    return directory / "sketch" / f"{number + 1:04}"
