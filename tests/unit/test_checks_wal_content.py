"""WAL that is wrong under a checksum that is right is found by its page headers, and by what pg_waldump says of it."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scripts import load

pages, records, checksums, probes = load("pages"), load("records"), load("checksums"), load("probes")
chain, memory, repository = load("chain"), load("memory"), load("repository")

SIZE, BLOCK, SYSTEM = 1 << 20, 8192, 7711107137613415295
MAGIC = 0xD110


def page(
    timeline: int, address: int, *, rest: int = 0, system: int = SYSTEM, size: int = SIZE, fill: bytes = b"x"
) -> bytes:
    """Return a page of WAL as PostgreSQL lays it out; ``rest`` bytes of it go on from the page before."""
    first = address % SIZE == 0
    head = struct.pack("=HHIQI4x", MAGIC, 2 * first | (rest > 0), timeline, address, rest)
    return (head + (struct.pack("=QII", system, size, BLOCK) if first else b"")).ljust(BLOCK, fill)


def segment(number: int = 5, timeline: int = 1, used: int = SIZE // BLOCK, **other: Any) -> bytearray:
    """Return a segment, with that many pages in use."""
    places = range(number * SIZE, number * SIZE + used * BLOCK, BLOCK)
    return bytearray(b"".join(page(timeline, place, **other) for place in places).ljust(SIZE, b"\0"))


def judged(content: bytes | bytearray, timeline: int = 1, number: int = 5) -> str:
    return str(pages.complaint(bytes(content), (timeline, number), SIZE, SYSTEM))


@pytest.mark.parametrize("used", [1, 2, 127, 128])
def test_a_segment_in_its_place_is_in_order(used: int) -> None:
    assert judged(segment(used=used)) == ""


def test_a_timeline_begins_with_pages_of_its_parent() -> None:
    content = segment(timeline=1)[: 8 * BLOCK] + segment(timeline=3)[8 * BLOCK :]
    assert judged(content, timeline=3) == ""
    assert judged(segment(timeline=3)[: 8 * BLOCK] + segment(timeline=1)[8 * BLOCK :], timeline=3) == (
        "has a page of timeline 1 at 0/510000"
    )
    assert judged(segment(timeline=3), timeline=2) == "has a page of timeline 3 at 0/500000"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (bytes(SIZE), "holds nothing but zeros"),
        (b"", "holds nothing but zeros"),
        (b"x" * 20, "does not begin as WAL does"),
        (b"\0\0" + segment()[2:], "does not begin as WAL does"),
        (segment()[BLOCK:] + bytes(BLOCK), "does not begin as WAL does"),
        (segment(system=SYSTEM + 1), f"is of another cluster, {SYSTEM + 1}"),
        (segment(size=SIZE * 2), f"is of segments of {2 * SIZE} bytes in pages of 8192, and has {SIZE}"),
        (segment()[: SIZE // 2], f"is of segments of {SIZE} bytes in pages of 8192, and has {SIZE // 2}"),
        (segment(number=6), "has a page of 0/600000 at 0/500000"),
        (segment()[: 9 * BLOCK] + segment(number=4)[9 * BLOCK :], "has a page of 0/412000 at 0/512000"),
        (segment()[: 9 * BLOCK] + bytes(BLOCK) + segment()[10 * BLOCK :], "has a page of 0/0 at 0/512000"),
    ],
    ids=["zeros", "empty", "short", "no magic", "no long header", "foreign", "sizes", "half", "place", "page", "hole"],
)  # fmt: skip
def test_what_is_no_segment_of_that_place_is_told(content: bytes, words: str) -> None:
    assert judged(content) == words


def test_records_begin_after_what_goes_on_from_the_page_before() -> None:
    whole = (
        page(1, 5 * SIZE, rest=9000)
        + page(1, 5 * SIZE + BLOCK, rest=9000 - (BLOCK - 40))
        + page(1, 5 * SIZE + 2 * BLOCK)
    )
    assert list(pages.beginnings(whole)) == [BLOCK + 24 + 848, 2 * BLOCK + 24]
    assert list(pages.beginnings(bytes(segment(used=1)))) == [40]


DAMAGE = "error: error in WAL record at 0/500100: incorrect resource manager data checksum in record at 0/500140"
ZEROS = "error: error in WAL record at 0/500100: invalid record length at 0/500140: wanted 24, got 0"


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (DAMAGE, ("incorrect resource manager data checksum in record at 0/500140", 0x500140)),
        (
            "error: error in WAL record at 0/500100: unexpected pageaddr 0/100000 in log segment 05, offset 8192",
            ("unexpected pageaddr 0/100000 in log segment 05, offset 8192", 0x500100),
        ),
        ("error: could not find a valid record after 0/500028", ("no valid record there", 0x500028)),
        ('error: could not find file "000000010000000000000005": No such file or directory', None),
    ],
)
def test_where_reading_stopped_is_told(words: str, found: tuple[str, int] | None) -> None:
    assert records.stopped_at(words, 0x500028, 0x600000) == found


def test_zeros_are_the_end_only_where_nothing_follows() -> None:
    words = ZEROS.partition(": ")[2].partition(": ")[2]
    assert records.complaint(words, 0x500140, bytes(99), last=True) == ""
    assert records.complaint(words, 0x500140, bytes(99), last=False).startswith("recovery ends at 0/500140: invalid")
    assert records.complaint(words, 0x500140, bytes(9) + b"x", last=True).startswith(
        "recovery ends at 0/500140: invalid"
    )
    assert (
        records.complaint("incorrect data", 0x500140, bytes(99), last=True)
        == "recovery ends at 0/500140: incorrect data"
    )


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(memory, "STATE", tmp_path)
    return tmp_path


Answer = Callable[..., tuple[int, str]]


class Archive:
    """Segments by number, and a reader of them; ``asked`` has what pg_waldump was to read."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, state: Path, answer: Answer, *numbers: int, used: int = 128
    ) -> None:
        self.state, self.answer = state, answer
        self.asked: list[tuple[int, int, list[int]]] = []
        self.chain = chain.Chain(SIZE)
        self.known: dict[str, list[Any]] = {}
        for number in numbers:
            self.chain.add(self.path(number), self.chain.name(1, number))
        self.used, self.contents = used, b""
        monkeypatch.setattr(records, "ask", self._ask)
        self.reader = records.Reader(self.chain, "15-1", self.load, self.known)

    def path(self, number: int) -> str:
        return f"{self.chain.name(1, number)}-{'a' * 40}"

    def load(self, path: str) -> bytes:
        return self.contents or bytes(segment(self.chain.place(path)[1], used=self.used))

    def read(self, *numbers: int) -> dict[int, tuple[str, int]]:
        try:
            for number in numbers:
                self.reader.take((1, number), self.path(number), self.load(self.path(number)))
            self.reader.read()
        finally:
            self.reader.close()
        assert list(self.state.iterdir()) == []
        return {self.chain.place(path)[1]: found for path, found in self.reader.found.items()}

    def _ask(self, *argv: str) -> Any:
        if argv == ("pg_waldump", "--version"):
            return probes.subprocess.CompletedProcess(argv, 0, "pg_waldump (PostgreSQL) 15.14 (Debian 1)\n", "")
        start, end = (repository.parse_lsn(option.partition("=")[2]) for option in argv[-2:])
        there = sorted(int(file.name[-8:], 16) for file in Path(argv[2].partition("=")[2]).iterdir())
        self.asked.append((start, end, there))
        code, stderr = self.answer(start, end)
        return probes.subprocess.CompletedProcess(argv, code, "", stderr)


def fine(_start: int, _end: int) -> tuple[int, str]:
    return 0, ""


def rotten(start: int, end: int) -> tuple[int, str]:
    return (1, f"pg_waldump: {DAMAGE}\n") if start < 0x500140 < end else (0, "")


def test_segments_that_follow_each_other_are_read_at_once(monkeypatch: pytest.MonkeyPatch, state: Path) -> None:
    archive = Archive(monkeypatch, state, fine, 3, 4, 5, 7, used=2)
    assert archive.read(5, 4, 3, 7) == dict.fromkeys((3, 4, 5, 7), ("", records.ENDED))
    assert [(start, end) for start, end, _ in archive.asked] == [
        (3 * SIZE + 40, 6 * SIZE), (7 * SIZE + 40, 8 * SIZE)
    ]  # fmt: skip


def test_a_record_that_goes_on_is_read_with_the_neighbours(monkeypatch: pytest.MonkeyPatch, state: Path) -> None:
    archive = Archive(monkeypatch, state, fine, 3, 4, 5, 6)
    archive.known[archive.path(3)] = [1, 1, 1.0, "", records.OPEN]
    assert archive.read(4, 5) == {4: ("", records.OPEN), 5: ("", records.OPEN)}
    assert archive.asked == [(4 * SIZE - BLOCK + 24, 6 * SIZE + BLOCK, [3, 4, 5, 6])]


def test_a_neighbour_that_was_not_read_is_left_for_later(monkeypatch: pytest.MonkeyPatch, state: Path) -> None:
    archive = Archive(monkeypatch, state, fine, 3, 4)
    archive.known[archive.path(3)] = [1, 1, 1.0, "", records.UNREAD]
    assert archive.read(4) == {4: ("", records.OPEN)}
    assert archive.asked == [(4 * SIZE + 40, 5 * SIZE, [4])]


def test_damage_in_the_next_segment_is_not_of_this_one(monkeypatch: pytest.MonkeyPatch, state: Path) -> None:
    archive = Archive(monkeypatch, state, rotten, 4, 5)
    assert archive.read(4) == {4: ("", records.OPEN)}
    assert archive.asked == [(4 * SIZE + 40, 5 * SIZE + BLOCK, [4, 5])]


def test_damage_is_of_the_segment_in_which_reading_stopped(monkeypatch: pytest.MonkeyPatch, state: Path) -> None:
    archive = Archive(monkeypatch, state, rotten, 4, 5, 6, 7, used=2)
    found = archive.read(4, 5, 6, 7)
    assert found.pop(5) == (f"recovery ends at 0/500140: {DAMAGE.rpartition(': ')[2]}", records.UNREAD)
    assert found == dict.fromkeys((4, 6, 7), ("", records.ENDED))
    assert len(archive.asked) == 2


def test_wal_that_ends_without_a_switch_is_to_be_read_again(monkeypatch: pytest.MonkeyPatch, state: Path) -> None:
    archive = Archive(monkeypatch, state, lambda *_: (1, f"pg_waldump: {ZEROS}"), 5, used=0)
    archive.contents = bytes(segment(used=1, fill=b"\0"))
    assert archive.read(5) == {5: ("", records.ENDED)}  # no record begins in it
    archive.contents = bytes(segment(used=1, fill=b"\0")[:40] + b"x" * 99).ljust(SIZE, b"\0")
    assert archive.read(5) == {5: ("", records.OPEN)}


@pytest.mark.parametrize("version", ["17-1", "9.6-1"])
def test_another_versions_wal_is_not_called_damaged_nor_read(
    version: str, monkeypatch: pytest.MonkeyPatch, state: Path
) -> None:
    archive = Archive(monkeypatch, state, rotten, 5)
    archive.reader.identity = version
    assert archive.read(5) == {}
    assert archive.reader.troubles == ["pg_waldump is of version 15"]


def test_what_cannot_be_read_says_why(monkeypatch: pytest.MonkeyPatch, state: Path) -> None:
    archive = Archive(monkeypatch, state, lambda *_: (1, "pg_waldump: error: could not open file"), 5)
    assert archive.read(5) == {}
    assert archive.reader.troubles == ["error: could not open file"]

    def absent(*_: str) -> None:
        raise probes.Problem("unknown", "cannot run pg_waldump: No such file or directory", "install it")

    monkeypatch.setattr(records, "ask", absent)
    archive.reader.troubles.clear()
    assert archive.read(5) == {}
    assert archive.reader.troubles == ["cannot run pg_waldump: No such file or directory"]
    monkeypatch.setattr(memory, "STATE", state / "absent")
    archive.reader.troubles.clear()
    with pytest.raises(FileNotFoundError):
        next((state / "absent").iterdir())
    archive.reader.take((1, 5), archive.path(5), bytes(segment()))
    assert [re.sub("[^:]*: ", "", trouble) for trouble in archive.reader.troubles] == ["No such file or directory"]


def test_what_a_killed_process_left_is_removed(monkeypatch: pytest.MonkeyPatch, state: Path) -> None:
    left, used = state / ".wal-iop-left", state / ".wal-iop-used"
    for directory in (left, used):
        directory.mkdir()
    lock = records.locked(used)
    directory = records.Directory()
    directory.get()
    assert not left.exists()
    assert used.exists()
    directory.remove()
    records.remove(used, lock)
    assert list(state.iterdir()) == []
