"""Finds what travels with the package: scenarios and the deployed system, with the stack's half in it.

In a wheel they lie inside the package; in a checkout, at its top.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
DEPLOYED = ("compose.yaml", "control.sh", "control", "image", "pgbackrest")
"""What is deployed, below :func:`deployed`."""


def _root() -> Path:
    packaged = _PACKAGE / "_data"
    return packaged if packaged.is_dir() else _PACKAGE.parents[1]


def scenarios() -> Path:
    """Return the folder of the scenarios that come with the package."""
    return _root() / "scenarios"


def deployed() -> Path:
    """Return the folder of ``compose.yaml``, ``control.sh`` and the rest of the deployed system."""
    return _root()


def digest(file: Path) -> str:
    """Return a file's SHA-256, in hexadecimal."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def digests(folder: Path) -> Mapping[str, str]:
    """Return the SHA-256 of each file in a folder, by name."""
    return {file.name: digest(file) for file in sorted(folder.iterdir()) if file.is_file()}


def stack_half() -> Path:
    """Return the folder of ``pgbackrest.conf``, ``backup.sh`` and the files beside them."""
    return _root() / "pgbackrest"
