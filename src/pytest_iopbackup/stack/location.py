"""Where on this machine runs live: in memory where there is plenty of it, else in the temporary directory.

A stack is a few hundred megabytes of small files, most of which pgBackRest writes through to the disk with fsync, and
which are deleted soon after: on a disk, a trial of a fault takes twice as long.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from pytest_iopbackup.errors import MachineError

_LONGEST = 60
"""Unix socket paths end at 107 bytes (unix(7)); below the base come the run, the stack, and ``.s.PGSQL.5432``."""
_MEMORY = Path("/dev/shm")  # noqa: S108 - names in it are random, directories are made with mode 0700
_TEMPORARY = Path("/tmp")  # noqa: S108 - likewise
_PLENTY = 6 << 30
"""Bytes of memory that must be free, there and in all: a run takes one to two thousand million of them."""


def base_directory(explicit: Path | None) -> Path:
    """Return where runs are made: as given, or where ``TMPDIR`` says, or in memory, or in the temporary directory.

    Raises MachineError for one that is given and whose path is too long.
    """
    if explicit is not None:
        base = explicit.absolute()
        if len(os.fsencode(base)) > _LONGEST:
            raise MachineError(
                f"work directory {base}: longer than {_LONGEST} bytes, so that no Unix socket below it could be opened",
                hint="choose a shorter --iop-work-dir",
            )
        return base
    if not os.environ.get("TMPDIR") and _plenty():
        return _MEMORY
    return _temporary()


def base_directories() -> tuple[Path, ...]:
    """Return every place that runs without a place of their own may have been made in."""
    return tuple(dict.fromkeys((_temporary(), _MEMORY)))


def _temporary() -> Path:
    base = Path(tempfile.gettempdir()).absolute()
    return base if len(os.fsencode(base)) <= _LONGEST else _TEMPORARY


def _plenty() -> bool:
    with suppress(OSError):
        available = re.search(r"^MemAvailable: +(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
        free = min(int(available[1]) << 10 if available else 0, shutil.disk_usage(_MEMORY).free)
        runs_programs = not os.statvfs(_MEMORY).f_flag & os.ST_NOEXEC
        return free >= _PLENTY and runs_programs and os.access(_MEMORY, os.W_OK)
    return False
