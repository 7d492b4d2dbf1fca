"""Extension points for third parties; implement them in a ``conftest.py`` or a plugin of your own."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_iopbackup.record import RunRecord
    from pytest_iopbackup.registry import Registry


def pytest_iopbackup_register(registry: Registry) -> None:
    """Add to what a run can use, such as folders of scenarios: ``registry.add_scenarios(Path(...))``.

    Called once, before scenarios are selected; of ``conftest.py`` files only those that pytest loads at start-up count.
    """


def pytest_iopbackup_run_finished(record: RunRecord) -> None:
    """Take the record of a finished run, after its reports were written; once, on pytest-xdist's controller."""
