"""The headers of the pages of archived WAL: whether a segment is what its name says, and of this cluster.

The checksum in that name is made when the segment is pushed: of WAL that was wrong by then, it is right, too. Standard
library only.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from repository import format_lsn

PAGE = struct.Struct("=HHIQI")  # XLogPageHeaderData (xlog_internal.h, alike from 12 to 18), with padding 24 bytes
LONG = struct.Struct("=QII")  # what XLogLongPageHeaderData adds: system identifier, size of a segment, of a page
CONTINUES, IS_LONG = 1, 2  # xlp_info

Place = tuple[int, int]
"""Timeline and number of a segment."""


def used(content: bytes, block: int = 8192) -> int:
    """Return up to where a segment is in use: PostgreSQL fills it with zeros, page by page, where it ends it early."""
    end, empty = len(content), bytes(block)
    while end and content[max(0, end - block) : end] == empty[: min(end, block)]:
        end = max(0, end - block)
    return end


def complaint(content: bytes, place: Place, size: int, system: int) -> str:
    """Return what is wrong with a segment by its page headers, or nothing."""
    timeline, number = place
    end = used(content)
    if not end:
        return "holds nothing but zeros"
    magic, info, *_ = PAGE.unpack_from(content) if len(content) > 40 else (0, 0)
    if not magic or not info & IS_LONG:
        return "does not begin as WAL does"
    cluster, length, block = LONG.unpack_from(content, 24)
    if cluster != system:
        return f"is of another cluster, {cluster}"
    if (length, len(content)) != (size, size) or block not in {1 << power for power in range(10, 17)}:
        return f"is of segments of {length} bytes in pages of {block}, and has {len(content)}"
    last = 0
    for offset in range(0, end, block):
        found, _, branch, address, _ = PAGE.unpack_from(content, offset)
        if found != magic or address != number * size + offset:
            return f"has a page of {format_lsn(address)} at {format_lsn(number * size + offset)}"
        if not max(last, 1) <= branch <= timeline:
            return f"has a page of timeline {branch} at {format_lsn(address)}"
        last = branch
    return ""


def beginnings(content: bytes) -> Iterator[int]:
    """Yield of each page in which a record begins the offset of the first one."""
    block = block_of(content)
    for offset in range(0, len(content), block):
        magic, info, _, _, rest = PAGE.unpack_from(content, offset)
        if not magic:
            break
        begin = (40 if info & IS_LONG else 24) + ((rest + 7) // 8 * 8 if info & CONTINUES else 0)
        if begin < block:
            yield offset + begin


def block_of(content: bytes) -> int:
    """Return the size of a page."""
    return int(LONG.unpack_from(content, 24)[2])


def is_open(content: bytes) -> bool:
    """Whether the last page is in use, so that a record may go on in the next segment."""
    return any(content[-block_of(content) :])
