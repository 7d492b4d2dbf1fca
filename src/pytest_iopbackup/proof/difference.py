"""What differs between two multisets of rows, given as lines ``key TAB hash`` (see :func:`rowset.lines`)."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from pytest_iopbackup.errors import ProofError

EXAMPLES = 10
"""How many rows are named in each way of differing."""

WIDTH = 120
"""Longest name of a row, in characters."""

MOST_WAITING = 200_000
"""Lines held in memory at most: some 40 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Keys, as JSON arrays, of the rows on one side only, and of those on both sides with another content."""

    missing: tuple[bytes, ...]
    unexpected: tuple[bytes, ...]
    changed: tuple[bytes, ...]


def difference(expected: Iterable[bytes], actual: Iterable[bytes]) -> Difference:
    """Compare two streams of lines as multisets; a key that is left on both sides is a changed row.

    The streams are read in step and equal lines cancel out as they meet, so what is held in memory is the lines that
    have not met yet, some 200 bytes each. A restore keeps rows where they were: that is little more than the
    differences. Had the rows been written anew in another order, it could be all of one side: raises ProofError where
    more than ``MOST_WAITING`` have not met.
    """
    waiting: dict[bytes, int] = {}  # expected lines count up, actual ones down
    for wanted, found in zip_longest(expected, actual):
        if wanted == found:
            continue
        for line, step in ((wanted, 1), (found, -1)):
            if line is not None:
                count = waiting.pop(line, 0) + step
                if count:
                    waiting[line] = count
        if len(waiting) > MOST_WAITING:
            raise ProofError(f"more than {MOST_WAITING:,} rows differ, or lie elsewhere: too many to be named")
    return _classified(waiting)


def _classified(waiting: dict[bytes, int]) -> Difference:
    surplus: dict[bytes, int] = defaultdict(int)  # per key: rows expected beyond those found
    extent: dict[bytes, int] = defaultdict(int)  # per key: rows on one side only, both sides added
    for line, count in waiting.items():
        key = line.rpartition(b"\t")[0]
        surplus[key] += count
        extent[key] += abs(count)
    return Difference(
        missing=tuple(_repeated((key, count) for key, count in surplus.items())),
        unexpected=tuple(_repeated((key, -count) for key, count in surplus.items())),
        changed=tuple(_repeated((key, (extent[key] - abs(count)) // 2) for key, count in surplus.items())),
    )


def _repeated(counts: Iterable[tuple[bytes, int]]) -> Iterator[bytes]:
    return (key for key, count in counts for _ in range(count))


def readable(key: bytes, columns: tuple[str, ...]) -> str:
    """Return ``user_id=7, group_id=9``; without columns the beginning of the row, one line of at most ``WIDTH``."""
    return readable_values(json.loads(key.replace(b"\\\\", b"\\").decode(errors="replace")), columns)


def readable_values(values: Sequence[str | None], columns: tuple[str, ...]) -> str:
    """Likewise of a key's values, of which the last may be missing."""
    if columns:
        text = ", ".join(f"{column}={plain(item)}" for column, item in zip(columns, values, strict=False))
    else:
        text = plain(values[0])
    return text if len(text) <= WIDTH else text[: WIDTH - 1] + "…"


def plain(item: str | None) -> str:
    """Return the text, quoted where it could be misread or would break the line."""
    if item is None:
        return "NULL"
    return item if item and item.isprintable() and item == item.strip() else json.dumps(item)
