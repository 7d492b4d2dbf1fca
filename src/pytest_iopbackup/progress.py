"""What people see while a run goes on: each step as it starts, how far a long one is, and its time when it ends."""

from __future__ import annotations

import time
from collections.abc import Callable

_BAR = 24


class Narrator:
    """Writes progress; on a terminal in place, elsewhere as plain lines.

    ``write`` gets text that may start with a carriage return and ends in a newline only when a line is complete.
    """

    def __init__(self, write: Callable[[str], None], *, live: bool) -> None:
        self._write = write
        self._live = live
        self._head = self._stage = ""
        self._shown = 0.0

    def begin(self, head: str) -> None:
        """Announce a piece of work as it starts."""
        self._head, self._stage = head, ""
        self._shown = time.monotonic()
        self._write(f"{head} …" if self._live else f"{head} …\n")

    def stage(self, name: str) -> Callable[[int, int], None]:
        """Say which part of the work goes on; returns what to call with its progress."""
        self._stage = f": {name}"
        if self._live:
            self._write(f"\r\033[K{self._head}{self._stage} …")
        return self.advance

    def advance(self, done: int, total: int) -> None:
        """Say how far the work is; at most ten times a second on a terminal, every five seconds elsewhere."""
        now = time.monotonic()
        if total <= 0 or now - self._shown < (0.1 if self._live else 5):
            return
        self._shown = now
        share = min(done / total, 1.0)
        if self._live:
            filled = int(share * _BAR)
            self._write(f"\r\033[K{self._head}{self._stage} {'█' * filled}{'░' * (_BAR - filled)} {share:4.0%}")
        else:
            self._write(f"{self._head}{self._stage}: {share:.0%}\n")

    def end(self, seconds: float, words: str) -> None:
        """Say how long the work took and how it ended."""
        text = f"{self._head}  {seconds:.1f} s  {words}".rstrip()
        self._write(f"\r\033[K{text}\n" if self._live else f"{text}\n")
