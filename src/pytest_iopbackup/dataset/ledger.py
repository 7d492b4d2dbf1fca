"""What a workload did, kept outside the database: one JSON object per line and transaction.

A line is written in one piece when the transaction has ended, so the file survives the death of its writer, though not
a power loss of the machine that holds it. What a crash can leave is a last line without its newline; it is ignored.
"""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass
from datetime import datetime, timezone
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from pytest_iopbackup.errors import ProofError

T = TypeVar("T")

_LSN = re.compile(r"[0-9A-F]{1,8}/[0-9A-F]{1,8}")


class Outcome(str, Enum):
    """How a transaction ended, as its client knows it."""

    ACKNOWLEDGED = "acknowledged"
    """The server confirmed COMMIT."""
    ROLLED_BACK = "rolled_back"
    """Rolled back, or the connection was lost before COMMIT was sent."""
    INDETERMINATE = "indeterminate"
    """The connection was lost inside COMMIT: may be there, need not be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """A row that a transaction changed, and the version it left."""

    table: str
    """With its schema: ``identity.users``."""
    key: str
    """The primary key's value as text."""
    version: int | None
    """None: the row was deleted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One transaction, or what one undid by rolling back to a savepoint (``kind`` is then ``savepoint``).

    A transaction is there if and only if ``identity.audit_log`` has its ``request_id``. ``effects`` are the rows it
    changed, in order; if it was rolled back, those it would have changed: where that was the plan, to a version that no
    committed transaction leaves (``plan.DOOMED``). Rows of tables without a version (``identity.audit_log``,
    ``identity.login_attempts``) are only ever added and are no effects.
    """

    request_id: str
    client: int
    kind: str
    outcome: Outcome
    xid: int | None
    """64 bits, epoch included; None where none is known, as for a savepoint."""
    lsn: str | None
    """Of the WAL insert position right after the commit: the commit record ends at or before it."""
    time: datetime | None
    """When it committed, in UTC: ``pg_xact_commit_timestamp`` and so what a recovery target time is compared with.
    ``now()`` would be the time at which the transaction began."""
    effects: tuple[Effect, ...]

    def __post_init__(self) -> None:
        if self.request_id != str(UUID(self.request_id)):
            raise ValueError(f"request_id {self.request_id!r} is not a UUID as PostgreSQL prints it")
        if self.lsn is not None and not _LSN.fullmatch(self.lsn):
            raise ValueError(f"lsn {self.lsn!r} is not a pg_lsn as PostgreSQL prints it")
        if self.time is not None and self.time.utcoffset() is None:
            raise ValueError(f"time {self.time} has no offset from UTC")


class Ledger:
    """An append-only file of entries; any thread may append."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._whole = False
        """The file is known to end with a newline."""

    def append(self, entry: Entry) -> None:
        """Write an entry; it is in the file, not in a buffer of this process, when this returns."""
        line = json.dumps(_to_json(entry), separators=(",", ":")).encode() + b"\n"
        with self._lock:
            if not self._whole:
                self._drop_torn_line()
            self._whole = False
            with self.path.open("ab") as file:
                file.write(line)
            self._whole = True

    def size(self) -> int:
        """Return the file's size in bytes, which grows with each entry; 0 where there is no file yet."""
        return self.path.stat().st_size if self.path.exists() else 0

    def entries(self) -> tuple[Entry, ...]:
        """Read all entries, in the order they were written; none where there is no file yet.

        Raises ProofError, with file and line, at a line that is not an entry.
        """
        lines = self._read().split(b"\n")[:-1]
        return tuple(self._parse(number, line) for number, line in enumerate(lines, 1))

    def _parse(self, number: int, line: bytes) -> Entry:
        try:
            return _from_json(json.loads(line))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ProofError(
                f"{self.path}:{number}: not a ledger entry: {error!r}",
                hint="the file was damaged; without it nothing can be said about lost transactions: run again",
            ) from error

    def _read(self) -> bytes:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return b""

    def _drop_torn_line(self) -> None:
        """Cut off what a crash left behind, lest the next entry be glued to it."""
        if data := self._read():
            with self.path.open("r+b") as file:
                file.truncate(data.rfind(b"\n") + 1)


def _to_json(entry: Entry) -> dict[str, object]:
    return {
        "request_id": entry.request_id,
        "client": entry.client,
        "kind": entry.kind,
        "outcome": entry.outcome.value,
        "xid": entry.xid,
        "lsn": entry.lsn,
        "time": entry.time.astimezone(timezone.utc).isoformat() if entry.time else None,
        "effects": [[effect.table, effect.key, effect.version] for effect in entry.effects],
    }


def _from_json(data: Any) -> Entry:
    time = _optional(str, data["time"])
    return Entry(
        request_id=_typed(str, data["request_id"]),
        client=_typed(int, data["client"]),
        kind=_typed(str, data["kind"]),
        outcome=Outcome(data["outcome"]),
        xid=_optional(int, data["xid"]),
        lsn=_optional(str, data["lsn"]),
        time=None if time is None else datetime.fromisoformat(time),
        effects=tuple(
            Effect(table=_typed(str, table), key=_typed(str, key), version=_optional(int, version))
            for table, key, version in _typed(list, data["effects"])
        ),
    )


def _typed(kind: type[T], value: object) -> T:
    if type(value) is not kind:  # isinstance would take True for an int
        raise TypeError(f"{value!r} is not of type {kind.__name__}")
    return value


def _optional(kind: type[T], value: object) -> T | None:
    return None if value is None else _typed(kind, value)
