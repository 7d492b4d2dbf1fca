"""Finds PostgreSQL's and pgBackRest's programs, and says what was checked where they are not."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from pytest_iopbackup.errors import MachineError
from pytest_iopbackup.stack.host import account

POSTGRESQL_MAJORS = range(14, 19)
PGBACKREST_OLDEST = (2, 45)
_PROGRAMS = ("postgres", "initdb", "psql", "pg_controldata")
_DISTRIBUTIONS = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/local/pgsql/bin", "/opt/postgresql*/bin")
_INSTALL = (
    "on Debian or Ubuntu './control.sh setup' installs both; elsewhere install PostgreSQL 14-18 with its server and "
    "contrib programs, and pgBackRest 2.45 or newer"
)


@dataclass(frozen=True, slots=True)
class Binaries:
    """Where the programs are, and their versions."""

    postgresql: Path
    """Directory of PostgreSQL's programs."""
    pgbackrest: Path
    python: Path
    """A Python that the unprivileged user can run, for ``health.py``."""
    postgresql_version: str
    pgbackrest_version: str


def find_binaries(postgresql: Path | None = None, pgbackrest: Path | None = None) -> Binaries:
    """Find what a local stack runs; arguments name a place explicitly and switch the search off.

    Raises MachineError, listing what was checked.
    """
    directory, version = _find_postgresql(postgresql)
    program, program_version = _find_pgbackrest(pgbackrest)
    return Binaries(directory, program, _find_python(), version, program_version)


def _find_postgresql(explicit: Path | None) -> tuple[Path, str]:
    checked: list[str] = []
    usable: list[tuple[tuple[int, ...], Path, str]] = []
    for candidate in [explicit] if explicit else _postgresql_candidates():
        missing = [name for name in _PROGRAMS if not os.access(candidate / name, os.X_OK)]
        if missing:
            checked.append(f"{candidate}: no {', '.join(missing)}")
            continue
        version = _version(candidate / "postgres", "--version")
        numbers = _numbers(version)
        if not numbers or numbers[0] not in POSTGRESQL_MAJORS:
            checked.append(f"{candidate}: PostgreSQL {version}, not 14 to 18")
            continue
        usable.append((numbers, candidate, version))
    if not usable:
        found = "; ".join(checked) or "pg_config on PATH, postgres on PATH, " + ", ".join(_DISTRIBUTIONS) + ": nothing"
        raise MachineError(
            f"PostgreSQL's programs not found. Checked: {found}", hint=f"{_INSTALL}, or --iop-pg-bin=DIR"
        )
    _, directory, version = max(usable)
    return directory, version


def _postgresql_candidates() -> list[Path]:
    candidates: list[Path] = []
    if pg_config := shutil.which("pg_config"):
        candidates.append(Path(_run([pg_config, "--bindir"])))
    if postgres := shutil.which("postgres"):
        candidates.append(Path(postgres).resolve().parent)
    for pattern in _DISTRIBUTIONS:
        candidates.extend(sorted(Path("/").glob(pattern.lstrip("/"))))
    return list(dict.fromkeys(candidates))


def _find_pgbackrest(explicit: Path | None) -> tuple[Path, str]:
    found = explicit or shutil.which("pgbackrest") or shutil.which("pgbackrest", path="/usr/bin:/usr/local/bin")
    if not found or not os.access(found, os.X_OK):
        checked = str(explicit) if explicit else "PATH, /usr/bin, /usr/local/bin"
        raise MachineError(f"pgBackRest not found. Checked: {checked}", hint=f"{_INSTALL}, or --iop-pgbackrest=FILE")
    version = _version(Path(found), "version")
    if _numbers(version) < PGBACKREST_OLDEST:
        raise MachineError(f"{found}: pgBackRest {version}, older than 2.45", hint=_INSTALL)
    return Path(found), version


def _find_python() -> Path:
    """Find a Python that the unprivileged user can run: root's own may lie in a home directory closed to others."""
    candidates = ["/usr/bin/python3", shutil.which("python3"), getattr(sys, "_base_executable", None), sys.executable]
    checked = [candidate for candidate in dict.fromkeys(candidates) if candidate]
    for candidate in checked:
        try:
            subprocess.run(
                [candidate, "-c", "import sys; sys.exit(sys.version_info < (3, 9))"],
                check=True,
                capture_output=True,
                cwd="/",
                timeout=30,
                **account().popen_arguments,
            )
        except (OSError, subprocess.SubprocessError):
            continue
        return Path(candidate)
    raise MachineError(
        f"no Python 3.9 or newer that user '{account().name}' can run. Checked: {', '.join(checked)}",
        hint="install the distribution's python3",
    )


def _version(program: Path, argument: str) -> str:
    """Return the version in a line such as ``postgres (PostgreSQL) 15.8 (Debian …)`` or ``pgBackRest 2.45``."""
    match = re.search(r"(?:\)|pgBackRest) (\d[\w.]*)", _run([str(program), argument]))
    return match[1] if match else "of unknown version"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


def _run(argv: list[str]) -> str:
    # As the unprivileged user: pgBackRest refuses root from 2.59 on. In /, which everybody may enter.
    try:
        done: subprocess.CompletedProcess[str] = subprocess.run(
            argv, check=False, capture_output=True, text=True, cwd="/", timeout=30, **account().popen_arguments
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise MachineError(f"cannot run {argv[0]}: {error}", hint=_INSTALL) from error
    return done.stdout.strip()
