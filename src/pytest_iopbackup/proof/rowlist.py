"""The rows of a small table one by one: where all of them fit, nothing has to be peeled, and any number is named."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from pytest_iopbackup.proof.sketch import Entry, Peeled, cut

HASH = 8
"""Bytes of a row's hash, which comes first."""


@dataclass(frozen=True, slots=True)
class RowList:
    """A table's rows in no order, each as many bytes. ``widths``: those of its hash, and of each word beside it."""

    widths: tuple[int, ...]
    content: bytes

    @property
    def rows(self) -> int:
        """How many rows are in it."""
        return len(self.content) // sum(self.widths)

    def dump(self) -> bytes:
        """Return it as bytes."""
        return self.content

    @staticmethod
    def load(widths: tuple[int, ...], dumped: bytes) -> RowList:
        """Read it back; ValueError if it holds no whole number of such rows."""
        if len(dumped) % sum(widths):
            raise ValueError(f"{len(dumped)} bytes are no rows of {sum(widths)} bytes each")
        return RowList(widths, dumped)

    def each(self) -> list[bytes]:
        """Return the rows' bytes."""
        width = sum(self.widths)
        return [self.content[at : at + width] for at in range(0, len(self.content), width)]


def subtract(first: RowList, second: RowList) -> Peeled:
    """Name the rows that are in only one of two lists, with multiplicity; rows are equal if their hashes are."""
    here, there = first.each(), second.each()
    balance = Counter(row[:HASH] for row in here)
    balance.subtract(row[:HASH] for row in there)
    words = {row[:HASH]: row for row in (*here, *there) if balance[row[:HASH]]}
    entries = []
    for row, content in words.items():
        _, *beside = cut(content, first.widths)
        entries.append(Entry(balance[row], int.from_bytes(row, "big"), tuple(beside)))
    return Peeled(tuple(entries), 0)
