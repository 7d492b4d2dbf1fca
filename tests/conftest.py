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


@pytest.fixture
def base() -> Iterator[Path]:
    """Give a directory that runs can be made in."""
    with work_directory() as path:
        yield path
