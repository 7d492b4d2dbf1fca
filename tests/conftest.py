"""What all tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from running import work_directory

pytest_plugins = ["pytester", "project"]


@pytest.fixture
def base() -> Iterator[Path]:
    """Give a directory that runs can be made in."""
    with work_directory() as path:
        yield path
