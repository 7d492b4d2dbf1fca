"""WAL locations and segment names (PostgreSQL's manual, "WAL Internals")."""

from __future__ import annotations

import re

_LSN = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")
_SEGMENT = re.compile(r"([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8})")


def parse_lsn(text: str) -> int:
    """Return an LSN such as ``0/3000028`` as a byte position. Raises ValueError."""
    match = _LSN.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not an LSN: two hexadecimal numbers with a slash, such as 0/3000028")
    return int(match[1], 16) << 32 | int(match[2], 16)


def format_lsn(position: int) -> str:
    """Return a byte position as PostgreSQL writes it."""
    return f"{position >> 32:X}/{position & 0xFFFFFFFF:X}"


def segment_name(timeline: int, number: int, segment_size: int) -> str:
    """Return the name of the segment that begins at ``number`` times ``segment_size`` bytes."""
    per_file = (1 << 32) // segment_size
    return f"{timeline:08X}{number // per_file:08X}{number % per_file:08X}"


def segment_timeline(name: str) -> int:
    """Return the timeline in a WAL segment's name. Raises ValueError."""
    return int(_segment(name)[1], 16)


def segment_sizes(position: int, name: str) -> frozenset[int]:
    """Return the sizes of segments at which a byte position lies in the segment ``name``: one, unless it is number 0.

    ``initdb --wal-segsize`` takes powers of two from 1 MiB to 1 GiB. Raises ValueError.
    """
    match = _segment(name)
    sizes = (1 << bits for bits in range(20, 31))
    return frozenset(size for size in sizes if segment_name(int(match[1], 16), position // size, size) == name)


def segment_end(name: str, segment_size: int) -> int:
    """Return the byte position behind a segment of ``segment_size`` bytes. Raises ValueError."""
    match = _segment(name)
    return (int(match[2], 16) << 32) + (int(match[3], 16) + 1) * segment_size


def _segment(name: str) -> re.Match[str]:
    match = _SEGMENT.fullmatch(name)
    if match is None:
        raise ValueError(f"{name!r} is not a WAL segment's name")
    return match
