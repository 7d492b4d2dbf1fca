"""WAL that recovery refuses to pass is found by its own words, and nothing else is taken for it."""

from __future__ import annotations

import struct

import pytest

from scripts import load

checksums = load("checksums")

MINIMAL, REPLICA, LOGICAL = 0, 1, 2


def parameter_change(wal_level: int, *, info: int = 0x60, resource_manager: int = 0) -> bytes:
    """Return the record that a server writes when it starts with other settings, as PostgreSQL lays it out."""
    header = struct.pack("=IIQBBHI", 54, 0, 0x9000028, info, resource_manager, 0, 0xDEADBEEF)
    return header + struct.pack("=BB6i??2x", 255, 28, 100, 8, 0, 0, 64, wal_level, False, True)


def segment(record: bytes, at: int = 40) -> bytes:
    """Return a segment with a record at a place in it."""
    return (b"\xaa" * at + record).ljust(8192, b"\0")


def test_a_record_of_wal_level_minimal_is_found() -> None:
    assert len(parameter_change(MINIMAL)) == 54
    assert checksums.was_minimal(segment(parameter_change(MINIMAL)))
    assert checksums.was_minimal(segment(parameter_change(REPLICA) + bytes(2) + parameter_change(MINIMAL)))


@pytest.mark.parametrize(
    "content",
    [
        segment(parameter_change(REPLICA)),
        segment(parameter_change(LOGICAL)),
        segment(parameter_change(MINIMAL, info=0x50)),
        segment(parameter_change(MINIMAL, resource_manager=10)),
        segment(parameter_change(MINIMAL), at=41),
        bytes(8192),
    ],
    ids=["replica", "logical", "another record", "another resource manager", "no place of a record", "empty"],
)
def test_nothing_else_is_taken_for_it(content: bytes) -> None:
    assert not checksums.was_minimal(content)
