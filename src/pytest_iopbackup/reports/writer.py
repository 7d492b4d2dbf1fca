"""Writes a run's reports into a directory of its own, and points ``latest`` at it."""

from __future__ import annotations

import secrets
from pathlib import Path

from pytest_iopbackup.errors import MachineError
from pytest_iopbackup.record import RunRecord
from pytest_iopbackup.reports.codec import to_json
from pytest_iopbackup.reports.markdown import to_markdown

JSON = "record.json"
MARKDOWN = "report.md"
LATEST = "latest"


def make_parent(parent: Path) -> None:
    """Make the directory that runs write below, and find out by trying whether they can. Raises MachineError."""
    probe = parent / f".probe-{secrets.token_hex(4)}"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        raise _unwritable(parent, error) from error


def write_reports(record: RunRecord, parent: Path) -> Path:
    """Write every format into ``parent/<run>``, let ``parent/latest`` point at that, and return it.

    Raises MachineError.
    """
    directory = parent / record.run
    link = parent / f".{LATEST}-{secrets.token_hex(4)}"
    try:
        directory.mkdir(parents=True)
        (directory / JSON).write_text(to_json(record, indent=2), encoding="utf-8")
        (directory / MARKDOWN).write_text(to_markdown(record), encoding="utf-8")
        link.symlink_to(directory.name)
        link.replace(parent / LATEST)
    except OSError as error:
        raise _unwritable(parent, error) from error
    return directory


def _unwritable(parent: Path, error: OSError) -> MachineError:
    return MachineError(
        f"cannot write reports in {parent}: {error.strerror}",
        hint="choose a directory that you may write in with --iop-report-dir=DIR",
    )
