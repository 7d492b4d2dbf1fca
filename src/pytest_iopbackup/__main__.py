"""``python -m pytest_iopbackup sweep``: remove what killed runs left, from outside pytest."""

from __future__ import annotations

import sys
from pathlib import Path

from pytest_iopbackup.errors import IopError
from pytest_iopbackup.stack.location import base_directories
from pytest_iopbackup.stack.workspace import sweep


def main(arguments: list[str]) -> int:
    """Sweep the temporary directory and memory, or what is given; return the exit code."""
    if not arguments or arguments[0] != "sweep":
        sys.stderr.write("usage: python -m pytest_iopbackup sweep [DIRECTORY...]\n")
        return 4
    try:
        for base in [Path(argument) for argument in arguments[1:]] or base_directories():
            for swept in sweep(base):
                sys.stderr.write(f"swept {swept.directory}: {len(swept.processes)} processes of a killed run\n")
    except IopError as error:
        sys.stderr.write(f"{error}\n")
        return 4
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
