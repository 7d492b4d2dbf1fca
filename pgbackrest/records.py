"""The records of archived WAL: pg_waldump reads each segment once, and finds where recovery would end too early.

Standard library only.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import memory
from pages import Place, beginnings, block_of, is_open, used
from probes import STANZA, Problem, ask
from repository import format_lsn, parse_lsn

if TYPE_CHECKING:
    from chain import Chain

UNREAD, ENDED, OPEN = 0, 1, 2  # of a segment's records: not read; read; read up to one that may go on in the next one
STOPPED = "recovery ends at "
ROOM = 1 << 26  # bytes of WAL that are read at a time, and lie in a directory meanwhile


class Reader:
    """Has pg_waldump read segments: it compares the checksum of each record, and whether it follows the one before.

    ``load`` returns the content of a neighbour; ``known`` has by path, last of all, the state of the records in it.
    ``found`` gets by path what is wrong and the new state, and ``troubles`` why some could not be read.
    """

    def __init__(
        self, chain: Chain, identity: str, load: Callable[[str], bytes | None], known: Mapping[str, Any]
    ) -> None:
        self.chain, self.identity, self.load, self.known = chain, identity, load, known
        self.found: dict[str, tuple[str, int]] = {}
        self.troubles: list[str] = []
        self._waiting: dict[Place, str] = {}
        self._lengths: dict[Place, tuple[int | None, bool]] = {}
        self._room = 0
        self._directory = Directory()

    def take(self, place: Place, path: str, content: bytes) -> None:
        """Take a segment in, and read, if these are many."""
        try:
            self._room += self._write(place, place[1], content)
        except OSError as error:
            self._trouble(error)
            return
        begins = next((b for b in beginnings(content) if content.count(0, b) < len(content) - b), None)
        self._waiting[place], self._lengths[place] = path, (begins, is_open(content))
        if self._room >= ROOM:
            self.read()

    def read(self) -> None:
        """Read what was taken in, in runs of segments that follow each other."""
        places = sorted(self._waiting)
        while places:
            run = [places.pop(0)]
            while places and places[0] == (run[-1][0], run[-1][1] + 1):
                run.append(places.pop(0))
            try:
                self._read_run(run)
            except OSError as error:
                self._trouble(error)
        self._waiting, self._lengths, self._room = {}, {}, 0
        self._directory.clear()

    def close(self) -> None:
        """Leave nothing behind."""
        self._directory.remove()

    def _trouble(self, error: OSError) -> None:
        self.troubles.append(f"{error.filename or memory.STATE}: {error.strerror}")

    def _state(self, path: str) -> int:
        return int(self.found[path][1] if path in self.found else (self.known.get(path) or [UNREAD])[-1])

    def _write(self, place: Place, number: int, content: bytes) -> int:
        file = self._directory.get() / self.chain.name(place[0], number)
        with file.open("wb") as stream:
            length = stream.write(content[: used(content)])
            stream.truncate(len(content))
        return length

    def _read_run(self, run: list[Place]) -> None:
        """Read a run, with what goes on from or into its neighbours; after damage, go on with the next segment."""
        size, begin = self.chain.size, self._before(run[0])
        last, end = self._after(run[-1])
        while run:
            starts = [(number, self._lengths[timeline, number][0]) for timeline, number in run]
            start = begin or next((number * size + offset for number, offset in starts if offset is not None), None)
            words, lsn = self._ask(run[0][0], start, end) if start is not None else ("", 0)
            if words is None:
                return
            stopped = run[-1][1] + 1
            if words and lsn < last:  # what comes after that is the next segment's
                stopped = min(max(lsn // size, run[0][1]), run[-1][1])
            for place in run:
                if place[1] < stopped:
                    self.found[self._waiting[place]] = ("", OPEN if self._lengths[place][1] else ENDED)
                elif place[1] == stopped:
                    self.found[self._waiting[place]] = self._judge(place, words, lsn)
            run, begin = [place for place in run if place[1] > stopped], None

    def _judge(self, place: Place, words: str, lsn: int) -> tuple[str, int]:
        """Say what it means that reading stopped in that segment; OPEN: it may turn out to be damage later."""
        timeline, number = place
        file = self._directory.get() / self.chain.name(timeline, number)
        rest = file.read_bytes()[max(0, lsn - number * self.chain.size) :]
        wrong = complaint(words, lsn, rest, last=(timeline, number + 1) not in self.chain.files)
        return wrong, UNREAD if wrong else OPEN

    def _before(self, place: Place) -> int | None:
        """Fetch the segments in which the record begins that goes on into this one; return where to begin reading."""
        timeline, number = place
        while True:
            lsn, number = number * self.chain.size, number - 1
            owner = next((t for t, left in self.chain.forks.get(timeline, ()) if left >= lsn), timeline)
            paths = self.chain.files.get((owner, number), [])
            if len(paths) != 1 or self._state(paths[0]) != OPEN:
                return None
            content = self.load(paths[0])
            if content is None:
                return None
            self._write(place, number, content)
            # It was read already: where a length is 0, a switch to the next segment has ended just before.
            first = max((b for b in beginnings(content) if any(content[b : b + 4])), default=None)
            if first is not None:
                return number * self.chain.size + first

    def _after(self, place: Place) -> tuple[int, int]:
        """Fetch the segments in which the last record of this one goes on; return where it ends, and where to stop.

        That is the end of a page, as pg_waldump needs all of one that says that a record was given up in a crash.
        """
        timeline, number = place
        while self._lengths[place][1]:
            paths = self.chain.files.get((timeline, number + 1), [])
            content = self.load(paths[0]) if len(paths) == 1 else None
            if content is None:
                break
            number += 1
            self._write(place, number, content)
            first = next(beginnings(content), None)
            if first is not None:
                begin, block = number * self.chain.size, block_of(content)
                return begin + first, begin + (first // block + 1) * block
        end = (number + 1) * self.chain.size
        return end, end

    def _ask(self, timeline: int, start: int, end: int) -> tuple[str | None, int]:
        """Let pg_waldump read; return what stopped it and where, nothing if all is well, None if it could not read."""
        argv = ["pg_waldump", "--stats", f"--path={self._directory.get()}", f"--timeline={timeline}"]
        try:
            answer = ask(*argv, f"--start={format_lsn(start)}", f"--end={format_lsn(end)}")
            if not answer.returncode:
                return "", 0
            version = re.search(r"\) (\d+)", ask("pg_waldump", "--version").stdout)
        except Problem as problem:
            self.troubles.append(problem.seen)
            return None, 0
        if not version or version[1] != re.split("[.-]", self.identity)[0]:
            self.troubles.append(f"pg_waldump is of version {version[1] if version else '?'}")
            return None, 0
        words = " ".join(answer.stderr.split()).replace("pg_waldump: ", "")
        stopped = stopped_at(words, start, end)
        if stopped is None:
            self.troubles.append(words)
        return (None, 0) if stopped is None else stopped


def stopped_at(words: str, start: int, end: int) -> tuple[str, int] | None:
    """Return what pg_waldump says of the WAL, and where it could not go on; None if that is not what it says."""
    match = re.search(
        r"error in WAL record at ([0-9A-F]+/[0-9A-F]+): (.*)|could not find a valid record after .*", words
    )
    if not match:
        return None
    if not match[1]:
        return "no valid record there", start
    places = [parse_lsn(place) for place in re.findall(r" at ([0-9A-F]+/[0-9A-F]+)", match[2])]
    place = places[-1] if places and start <= places[-1] < end else parse_lsn(match[1])
    return match[2], place


def complaint(words: str, lsn: int, rest: bytes, *, last: bool) -> str:
    """Say what it means that reading stopped: where nothing follows, zeros are the end of WAL."""
    if last and re.search(r"invalid record length .* got 0$", words) and not rest.strip(b"\0"):
        return ""
    return f"{STOPPED}{format_lsn(lsn)}: {words}"


class Directory:
    """A directory of this process below $IOP_STATE_PATH, made when it is needed; those of killed ones are removed."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._lock = -1

    def get(self) -> Path:
        """Return it."""
        if self._path is None:
            for other in memory.STATE.glob(f".wal-{STANZA}-*"):
                remove(other, locked(other))
            self._path = Path(tempfile.mkdtemp(prefix=f".wal-{STANZA}-", dir=memory.STATE))
            self._lock = locked(self._path)
        return self._path

    def clear(self) -> None:
        """Remove the files in it."""
        for file in self._path.iterdir() if self._path else ():
            file.unlink()

    def remove(self) -> None:
        """Remove it."""
        if self._path:
            remove(self._path, self._lock)
            self._path, self._lock = None, -1


def locked(directory: Path) -> int:
    """Take a directory for this process, as long as it lives; return a descriptor, -1 where another one has it."""
    with suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor
    return -1


def remove(directory: Path, lock: int) -> None:
    """Remove a directory that was taken."""
    if lock >= 0:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(lock)
