"""How transactions of the workload end: in one phase or, prepared, in two."""

from __future__ import annotations

from enum import Enum


class Ending(Enum):
    """How a transaction is meant to end."""

    COMMIT = "commit"
    COMMIT_PREPARED = "commit prepared"
    ROLLBACK = "rollback"
    ROLLBACK_PREPARED = "rollback prepared"

    @property
    def commits(self) -> bool:
        """Whether what was done stays."""
        return self in {Ending.COMMIT, Ending.COMMIT_PREPARED}

    @property
    def prepares(self) -> bool:
        """Whether in two phases."""
        return self in {Ending.COMMIT_PREPARED, Ending.ROLLBACK_PREPARED}

    @property
    def unprepared(self) -> Ending:
        """The same in one phase."""
        return Ending.COMMIT if self.commits else Ending.ROLLBACK


ENDINGS = {Ending.COMMIT: 88, Ending.COMMIT_PREPARED: 4, Ending.ROLLBACK: 6, Ending.ROLLBACK_PREPARED: 2}
"""In percent."""
