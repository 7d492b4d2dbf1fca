"""What all tests share."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from pytest_iopbackup.stack.location import base_directory
from running import work_directory

tempfile.tempdir = str(base_directory(None))  # as stacks do: in memory, where there is plenty

settings.register_profile("unhurried", deadline=None)  # a deadline per example would test the machine's load
settings.load_profile("unhurried")

pytest_plugins = ["pytester", "project"]

TURNS = {"compose": 1, "integration": 1, "plugin": 2, "unit": 3}
"""Which folders' files come first: those that take minutes."""

CLOCKED = ("test_dataset.py",)
"""Files with a test that is held against the clock: they come among the unit tests, which leave it a processor."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what runs real systems first, so that no worker is left alone with a long file at the end.

    Files of Compose and of the local stack alternate: two deployed systems that come up at once need both processors.
    """
    folders: dict[str, dict[Path, None]] = {}
    for item in items:
        folders.setdefault(item.path.parent.name, {})[item.path] = None
    places = {
        path: (TURNS["unit" if path.name in CLOCKED else folder], number / len(files))
        for folder, files in folders.items()
        if folder in TURNS
        for number, path in enumerate(files)
    }
    items.sort(key=lambda item: places.get(item.path, (0, 0.0)))  # scenarios stay in their order


@pytest.fixture
def base() -> Iterator[Path]:
    """Give a directory that runs can be made in."""
    with work_directory() as path:
        yield path
