"""Finds what travels with the package: scenarios and the stack's half.

In a wheel they lie inside the package; in a checkout, at its top.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def _root() -> Path:
    packaged = _PACKAGE / "_data"
    return packaged if packaged.is_dir() else _PACKAGE.parents[1]


def scenarios() -> Path:
    """Return the folder of the scenarios that come with the package."""
    return _root() / "scenarios"


def stack_half() -> Path:
    """Return the folder of ``pgbackrest.conf``, ``backup.sh`` and the files beside them."""
    return _root() / "pgbackrest"
