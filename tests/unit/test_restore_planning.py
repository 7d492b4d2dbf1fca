"""The parts of a restore's planning that read and judge, without a server."""

from __future__ import annotations

import ast
import bz2
import gzip
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts import SCRIPTS, load

MODULES = ("restore", "targets", "timelines", "server", "wal", "repository", "unarchived")


repository, wal, targets = load("repository"), load("wal"), load("targets")
Refused = repository.Refused
NOON = datetime(2026, 1, 15, 12, 0, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-15 12:00:00+00", NOON),
        ("2026-01-15T12:00:00Z", NOON),
        ("2026-01-15 13:30:00+0130", NOON),
        ("2026-01-15 07:00:00 -05:00", NOON),
        ("2026-01-15 12:00:00.25+00", NOON.replace(microsecond=250000)),
        ("2026-01-15 12:00:00.000001Z", NOON.replace(microsecond=1)),
    ],
)
def test_a_time_with_an_offset_is_read_without_a_note(text: str, expected: datetime) -> None:
    assert targets.parse_time(text) == (expected, "")


def test_a_time_without_an_offset_is_utc_and_that_is_said() -> None:
    moment, note = targets.parse_time("2026-01-15 12:00:00")
    assert moment == NOON
    assert note == "2026-01-15 12:00:00 has no UTC offset: taken as 2026-01-15 12:00:00+00"


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-15",
        "12:00:00",
        "yesterday",
        "2026-01-15 12:00",
        "2026-01-15 12:00:00 CET",
        "2026-01-15 12:00:00.1234567+00",
        "2026-01-15 12:00:00+99",
        "2026-13-15 12:00:00+00",
        "2026-01-15 12:00:00+00'; DROP",
    ],
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(Refused) as refused:
        targets.parse_time(text)
    assert refused.value.code == 2


@given(st.datetimes(min_value=datetime(2000, 1, 1), max_value=datetime(2025, 1, 1)))  # noqa: DTZ001 - given a zone below
def test_a_written_time_is_read_back(moment: datetime) -> None:
    aware = moment.replace(tzinfo=timezone.utc)
    assert targets.parse_time(wal.format_time(aware)) == (aware, "")


@given(st.integers(0, (1 << 64) - 1))
def test_a_written_lsn_is_read_back(lsn: int) -> None:
    assert repository.parse_lsn(repository.format_lsn(lsn)) == lsn


@pytest.mark.parametrize("text", ["", "0", "0/", "/0", "G/0", "0/123456789", "0/1 ", "-1/0"])
def test_what_is_no_lsn_is_refused(text: str) -> None:
    with pytest.raises(Refused):
        targets.parse(["lsn", text])


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "rmgr: Transaction len (rec/tot):     34/    34, tx:        725, lsn: 0/03000110, prev 0/030000D8,"
            " desc: COMMIT 2026-01-15 12:00:00.000000 UTC",
            (0x3000110, 725, NOON),
        ),
        (
            "rmgr: Transaction len (rec/tot):     34/    34, tx:          0, lsn: 1/03000110, prev 0/030000D8,"
            " desc: ABORT_PREPARED 77: 2026-01-15 12:00:00.000000 UTC; rels: base/5/16384",
            (0x103000110, 77, NOON),
        ),
        (
            "rmgr: XLOG        len (rec/tot):     98/    98, tx:          0, lsn: 0/03000028, prev 0/02000100,"
            " desc: RESTORE_POINT with, commas lsn: 0/1",
            (0x3000028, 0, None),
        ),
    ],
)
def test_pg_waldumps_lines_are_read(line: str, expected: tuple[int, int, datetime | None]) -> None:
    record = wal.parse_record(line)
    assert (record.lsn, record.xid, record.when) == expected


def archive(**fields: Any) -> Any:
    """Return an archive that has looked nowhere."""
    made = object.__new__(wal.Archive)
    defaults = {"identity": "17-1", "size": 1 << 24, "lineage": {1: None}, "files": {}, "double": {}}
    for name, value in {**defaults, **fields}.items():
        setattr(made, name, value)
    return made


def test_segments_are_counted_through_whatever_their_size() -> None:
    for size in (1 << 20, 1 << 24, 1 << 30):
        made = archive(size=size)
        for lsn in (0, size, 0xFFFFFFFF, 1 << 32, 0x12_3456_7890):
            number = lsn // size
            assert made.number(made.name(number)) == number


def test_a_segment_is_of_the_newest_timeline_that_has_it() -> None:
    made = archive(lineage={1: 0x3000100, 3: 0x5000000, 4: None})
    assert made.spans() == {1: (0, 3), 3: (3, 4), 4: (5, 1 << 62)}
    assert [made.name(number)[:8] for number in (2, 3, 4, 5)] == ["00000001", "00000003", "00000003", "00000004"]


def test_missing_and_double_segments_are_holes() -> None:
    made = archive(files=dict.fromkeys((2, 3, 5, 6)), double={6: "…"})
    assert [made.hole(2, 3), made.hole(2, 6), made.hole(5, 6), made.hole(5, 5)] == [None, 4, 6, None]


@pytest.mark.parametrize(("suffix", "pack"), [("", bytes), (".gz", gzip.compress), (".bz2", bz2.compress)])
def test_compressed_files_are_unpacked(suffix: str, pack: Any) -> None:
    assert repository.unpack(pack(b"content"), suffix) == b"content"


@pytest.mark.parametrize("suffix", [".zst", ".lz4"])
def test_damaged_files_are_not_unpacked(suffix: str) -> None:
    with pytest.raises(ValueError, match="damaged"):
        repository.unpack(b"nonsense", suffix)


@pytest.mark.parametrize("name", MODULES)
def test_the_scripts_are_of_python_3_9(name: str) -> None:
    ast.parse((SCRIPTS / f"{name}.py").read_text(), feature_version=(3, 9))
