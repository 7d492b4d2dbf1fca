"""What third parties add, by way of the hook ``pytest_iopbackup_register``."""

from __future__ import annotations

from pathlib import Path

from pytest_iopbackup import resources
from pytest_iopbackup.errors import UsageError


class Registry:
    """Collects extensions before a run."""

    def __init__(self) -> None:
        self._folders: list[Path] = []

    def add_scenarios(self, folder: Path) -> None:
        """Offer every ``*.yaml`` below a folder as a scenario; its names win over those added before.

        Raises UsageError where there is no such folder.
        """
        if not folder.is_dir():
            raise UsageError(f"scenario folder {folder} is not a directory")
        self._folders.append(folder)

    @property
    def scenario_folders(self) -> tuple[Path, ...]:
        """Folders in the order in which they were added."""
        return tuple(self._folders)


def register_builtins(registry: Registry) -> None:
    """Add what comes with the package."""
    registry.add_scenarios(resources.scenarios())
