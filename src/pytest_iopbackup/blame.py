"""From an error to a verdict and its words."""

from __future__ import annotations

import traceback

from pytest_iopbackup.errors import (
    DeadlineError,
    HealError,
    IopError,
    MachineError,
    ProofError,
    TargetError,
    UsageError,
)
from pytest_iopbackup.proven import Verdict


def blame(error: Exception) -> Verdict:
    """Say whether an error speaks of the system under test, or of the harness's inability to find out."""
    if isinstance(error, TargetError):  # asked for rightly or not: it cannot be restored
        return Verdict.FAILED
    unable = (ProofError, MachineError, DeadlineError, UsageError, HealError)
    return Verdict.UNKNOWN if isinstance(error, unable) or not isinstance(error, IopError) else Verdict.FAILED


def words(error: Exception) -> str:
    """Return what an error says, without a traceback."""
    if isinstance(error, IopError):
        return str(error)
    if isinstance(error, OSError):
        return f"the machine: {error}"
    return "".join(traceback.format_exception_only(error)).strip()
