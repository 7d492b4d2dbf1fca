"""The expected state of a database, kept outside it: the database may be gone when it is needed.

A capture is a directory::

    capture.json     digests, catalog objects, sequences; written last, so that half a capture is none
    rows/0007.gz     of the seventh table, one line per row: key, TAB, hash; read only if the table differs

The keys are data, and in a table without a primary key they are the rows themselves: the directory is for its
owner alone.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import cattrs

from pytest_iopbackup.errors import MachineError, ProofError
from pytest_iopbackup.proof.catalog import CatalogObject, catalog_objects
from pytest_iopbackup.proof.rowset import Method, RowSet, digest, lines, method, user_tables
from pytest_iopbackup.proof.sequences import SequenceState, behind_columns, read_states
from pytest_iopbackup.proof.session import Connection, Cursor, reading

Progress = Callable[[int, int], None]
"""Called with the rows done and the rows in all."""

FORMAT = 1
"""Grows when a capture written before could be misread."""

BATCH = 10_000
"""Lines written, and rows reported, at a time."""

_converter = cattrs.Converter(forbid_extra_keys=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """What must be there after a restore."""

    directory: Path
    method: Method
    tables: tuple[RowSet, ...]
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

    def lines(self, table: str) -> Generator[bytes, None, None]:
        """Yield the lines of one table, as :func:`rowset.lines` gave them; ProofError if they cannot be read."""
        number = next(number for number, rows in enumerate(self.tables, 1) if rows.table == table)
        path = _rows_file(self.directory, number)
        try:
            with gzip.open(path, "rb") as file:
                yield from file
        except (OSError, EOFError, zlib.error) as error:
            raise ProofError(
                f"the captured rows of {table} cannot be read: {path}: {error}", hint="capture the state again"
            ) from error


def capture(
    connection: Connection,
    directory: Path,
    progress: Progress | None = None,
    *,
    sequences: tuple[SequenceState, ...] | None = None,
) -> Capture:
    """Read the whole database behind ``connection`` and keep in ``directory`` what a comparison will need.

    For an exact mark on a database that is written to: import the mark's snapshot on ``connection`` (REPEATABLE READ)
    first, and pass the ``sequences`` read under its locks, since sequences follow no snapshot. TRUNCATE and
    ALTER TABLE do not respect snapshots either: whoever exports the snapshot keeps ACCESS SHARE locks until this ends.

    Raises ProofError when anything cannot be read or ``directory`` holds a capture already, MachineError when the
    files cannot be written.
    """
    if (directory / "capture.json").exists():
        raise ProofError(f"{directory} holds a capture already", hint="give each capture a directory of its own")
    try:
        (directory / "rows").mkdir(parents=True, exist_ok=True)
        directory.chmod(0o700)
        with reading(connection) as cursor:
            taken = _take(cursor, directory, progress, sequences)
        _save(taken)
    except OSError as error:
        raise MachineError(
            f"the expected state cannot be kept: {error}", hint=f"see to space and permissions in {directory}"
        ) from error
    return taken


def _take(
    cursor: Cursor, directory: Path, progress: Progress | None, sequences: tuple[SequenceState, ...] | None
) -> Capture:
    tables = user_tables(cursor)
    compared = [table for table in tables if table.skipped is None]
    row_sets = tuple(digest(cursor, table) for table in compared)
    total, done = sum(rows.rows for rows in row_sets), 0
    for number, (table, rows) in enumerate(zip(compared, row_sets, strict=True), 1):
        written = 0
        with closing(lines(cursor, table, table.key)) as source:
            for count in _write(_rows_file(directory, number), source):
                written += count
                if progress is not None:
                    progress(done + written, total)
        if written != rows.rows:
            raise ProofError(
                f"{table.name} has {rows.rows} rows, but {written} were kept of the same snapshot",
                hint="capture the state again; if it stays so, report it",
            )
        done += written
    states = read_states(cursor) if sequences is None else sequences
    return Capture(
        directory=directory,
        method=method(cursor),
        tables=row_sets,
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
    part.write_text(json.dumps(content, indent=1), encoding="utf-8")
    part.replace(path)


def _write(path: Path, source: Iterable[bytes]) -> Generator[int, None, None]:
    """Write the lines, compressed, and yield how many at a time; memory stays bounded."""
    with gzip.open(path, "wb", compresslevel=1) as file:
        batch: list[bytes] = []
        for line in source:
            batch.append(line)
            if len(batch) == BATCH:
                file.write(b"".join(batch))
                yield len(batch)
                batch.clear()
        file.write(b"".join(batch))
        yield len(batch)


def _rows_file(directory: Path, number: int) -> Path:
    return directory / "rows" / f"{number:04}.gz"
