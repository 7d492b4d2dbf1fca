"""The modules of the stack's half, imported as Python does for a script that stands beside them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

SCRIPTS = Path(__file__).parents[1] / "pgbackrest"


def load(name: str) -> ModuleType:
    """Import a module, and leave no bytecode in the deployed directory."""
    sys.path.insert(0, str(SCRIPTS))
    written, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        return importlib.import_module(name)
    finally:
        sys.dont_write_bytecode = written
        sys.path.remove(str(SCRIPTS))
