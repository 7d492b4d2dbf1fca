"""A dataset as COPY data, table by table: a pure function of its spec.

Rows are made a chunk at a time and column by column, with as little Python per row as possible: 100,000 users
(680,000 rows) take a second or two. Each chunk draws from a random generator of its own, seeded by table and position.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

from pytest_iopbackup.dataset import copytext
from pytest_iopbackup.dataset.draw import Draw
from pytest_iopbackup.dataset.pools import Pools, make_pools
from pytest_iopbackup.dataset.rows import Columns, LargeObject, Rows
from pytest_iopbackup.dataset.spec import DatasetSpec

CHUNK_ROWS = 2000

_LARGE_OBJECT_SIZES = (0, 1, 2048, 65_537, 300_000)
"""Bytes. A large object is kept in pages of 2 kB (PostgreSQL's manual, "pg_largeobject")."""

_FIRST_LARGE_OBJECT = 4_000_000_001
"""Their OIDs are ours, not the server's choice, so that every load has the same; far from a new cluster's counter."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows of one table, as COPY text in UTF-8."""

    rows: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Table:
    """One table's rows: how many there are and how to make them."""

    name: str
    rows: int
    seed: int
    make: Callable[[Draw], Columns]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the rows fill, in the order of the data; the others have defaults."""
        return tuple(self.make(Draw("", range(0))))

    def chunks(self) -> Iterator[Chunk]:
        """Make the rows, in their order; every call gives the same bytes."""
        for first in range(0, self.rows, CHUNK_ROWS):
            numbers = range(first, min(first + CHUNK_ROWS, self.rows))
            columns = self.make(Draw(f"{self.seed}/{self.name}/{first}", numbers))
            yield Chunk(len(numbers), copytext.lines(tuple(columns.values())))


@dataclass(frozen=True, slots=True)
class Dataset:
    """Everything to be loaded."""

    tables: tuple[Table, ...]
    large_objects: tuple[LargeObject, ...]

    @property
    def rows(self) -> int:
        """Rows of all tables."""
        return sum(table.rows for table in self.tables)


def make_dataset(spec: DatasetSpec, pools: Pools | None = None) -> Dataset:
    """Say what is to be loaded; rows are made when a table's chunks are asked for.

    ``pools`` takes the place of Faker's, whose values depend on Faker's version.
    """
    rng = Random(f"{spec.seed}/large objects")  # noqa: S311 - reproducible, not secret
    large_objects = tuple(
        LargeObject(oid, rng.randbytes(size)) for oid, size in enumerate(_LARGE_OBJECT_SIZES, _FIRST_LARGE_OBJECT)
    )
    groups = max(8, spec.users // 50)
    rows = Rows(spec.seed, spec.users, groups, pools or make_pools(spec.seed), large_objects)
    counted = {
        "users": (rows.users, spec.users),
        "groups": (rows.groups, groups),
        "membership": (rows.membership, spec.users * 3 // 2),
        "credentials": (rows.credentials, spec.users * 6 // 5),
        "sessions": (rows.sessions, spec.users * 3 // 5 + 1),
        "audit_log": (rows.audit_log, spec.users * 3 // 2),
        "settings": (rows.settings, 100),
        "login_attempts": (rows.login_attempts, spec.users),
        "documents": (rows.documents, len(large_objects)),
    }
    tables = tuple(Table(f"identity.{name}", count, spec.seed, make) for name, (make, count) in counted.items())
    return Dataset(tables, large_objects)
