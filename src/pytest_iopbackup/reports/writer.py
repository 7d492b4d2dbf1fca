"""Writes a run's reports into a directory of its own, and points ``latest`` at it."""

from __future__ import annotations

import contextlib
import secrets
from pathlib import Path

from pytest_iopbackup.errors import MachineError
from pytest_iopbackup.record import RunRecord
from pytest_iopbackup.reports.codec import to_json
from pytest_iopbackup.reports.markdown import to_markdown

JSON = "record.json"
MARKDOWN = "report.md"
LATEST = "latest"


def make_directory(parent: Path, run: str) -> Path:
    """Make the run's directory before anything runs. Raises MachineError where that cannot be."""
    directory = parent / run
    try:
        directory.mkdir(parents=True)
    except OSError as error:
        raise MachineError(
            f"cannot write reports: {directory}: {error.strerror}",
            hint="choose a directory that you may write in with --iop-report-dir=DIR",
        ) from error
    return directory


def write_reports(record: RunRecord, directory: Path) -> None:
    """Write every format, then let ``latest`` beside the directory point at it."""
    (directory / JSON).write_text(to_json(record), encoding="utf-8")
    (directory / MARKDOWN).write_text(to_markdown(record), encoding="utf-8")
    link = directory.parent / f".{LATEST}-{secrets.token_hex(4)}"
    link.symlink_to(directory.name)
    link.replace(directory.parent / LATEST)


def discard(directory: Path) -> None:
    """Remove the directory of a run that recorded nothing."""
    with contextlib.suppress(OSError):
        directory.rmdir()
