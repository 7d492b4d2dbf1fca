"""What the checks remember from one cycle to the next, in files of their own in $IOP_STATE_PATH."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from probes import STANZA

STATE = Path(os.environ.get("IOP_STATE_PATH") or "/var/lib/iop-backup")

AGAIN = 60
"""Seconds for which an answer is taken from memory while nothing that it depends on has changed."""


def is_recent(moment: float) -> bool:
    """Whether what was noted at that moment may stand for asking again; not where the clock was set back since."""
    return 0 <= time.time() - moment < AGAIN


def write(path: Path, text: str) -> None:
    """Replace a file as a whole: a reader never sees half of it, nor does a crash leave half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


class Memory(dict[str, Any]):
    """One check's memory of this stanza. What is lost or unreadable begins anew, and ``new`` says so."""

    def __init__(self, name: str) -> None:
        self.path = STATE / f"remembered-{STANZA}-{name}.json"
        try:
            text = self.path.read_text()
            super().__init__(json.loads(text))
        except (OSError, ValueError, TypeError):
            text = ""
            super().__init__()
        self.new = not self
        self._saved = text

    def save(self) -> None:
        """Write it down, if it has changed. Where that cannot be done, health.py says so of its status file."""
        text = json.dumps(self, separators=(",", ":"), sort_keys=True)
        if text != self._saved:
            with suppress(OSError):
                write(self.path, text)
                self._saved = text
