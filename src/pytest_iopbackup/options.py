"""What the user set, as one frozen object: the command line wins over the ini file, which wins over defaults."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

KEEP = ("never", "failed", "always")
STACKS = ("auto", "local", "compose")

Number = TypeVar("Number", int, float)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The plugin's options; see ``pytest --help``, group "iopbackup"."""

    scenarios: tuple[str, ...] = ()
    scenario_base: Path = Path()
    """What paths among the scenarios are relative to."""
    stack: str = "auto"
    seed: int = 42
    keep: str = "never"
    report_dir: Path = Path("reports")
    timeout_scale: float = 1.0
    redact: bool = False
    """Whether values and keys of rows are hidden wherever a comparison is told of."""
    work_dir: Path | None = None
    pg_bin: Path | None = None
    pgbackrest: Path | None = None
    compose_files: tuple[Path, ...] = ()
    """Compose files of a stack other than ours; later ones override earlier ones."""
    compose_map: Path | None = None
    """What that stack's services, volumes and variables are called."""


def add_options(parser: pytest.Parser) -> None:
    """Register every option with its ini twin: ``--iop-seed`` and ``iop_seed``."""
    group = parser.getgroup("iopbackup", "restore drills for PostgreSQL and pgBackRest")

    def add(name: str, help_text: str, *, kind: str = "string", **arguments: object) -> None:
        group.addoption(f"--iop-{name}", default=None, help=help_text, **arguments)
        parser.addini(f"iop_{name.replace('-', '_')}", f"the same as --iop-{name}", type=kind, default=None)  # type: ignore[arg-type]

    add(
        "scenario",
        "run this scenario: a name, tag:NAME, a path, or all (repeatable)",
        kind="args",
        action="append",
        metavar="NAME",
    )
    add("stack", "where scenarios run: auto (default), local (child processes) or compose", choices=STACKS)
    add("seed", "seed of the dataset and the workload (default 42)", type=int, metavar="N")
    add("keep", "leave a stack's directory: never (default), failed or always", choices=KEEP)
    add("report-dir", "where reports are written (default: reports, below the root directory)", metavar="DIR")
    add(
        "redact",
        "hide values and keys of rows: only counts, columns and a short digest of the key are told (default no)",
        kind="bool",
        action="store_true",
    )
    add("timeout-scale", "multiply every time limit by this (default 1)", type=float, metavar="X")
    add(
        "work-dir",
        "where stacks live meanwhile (default: TMPDIR, or memory if 6 GiB are free, or /tmp)",
        metavar="DIR",
    )
    add("pg-bin", "directory of PostgreSQL's programs (default: searched for)", metavar="DIR")
    add("pgbackrest", "pgBackRest's program (default: searched for)", metavar="FILE")
    add(
        "compose-file",
        "a Compose file of yours to drill on, instead of ours; a second one overrides (repeatable)",
        kind="args",
        action="append",
        metavar="FILE",
    )
    add("compose-map", "YAML file: what that file's services, volumes and variables are called", metavar="FILE")
    group.addoption("--iop-list", action="store_true", help="list the scenarios and what each proves, and exit")


def read_options(config: pytest.Config) -> Options:
    """Return the options of this pytest run. Raises pytest.UsageError for a value that makes no sense."""

    def path(name: str) -> Path | None:
        value = _value(config, name)
        return (_base(config, name) / str(value)).absolute() if value is not None else None

    return Options(
        scenarios=tuple(_list(config, "scenario")),
        scenario_base=_base(config, "scenario"),
        stack=_choice(config, "stack", STACKS, "auto"),
        seed=_number(config, "seed", 42, minimum=0),
        keep=_choice(config, "keep", KEEP, "never"),
        report_dir=path("report-dir") or config.rootpath / "reports",
        redact=bool(_value(config, "redact")),
        timeout_scale=_number(config, "timeout-scale", 1.0, minimum=0.01),
        work_dir=path("work-dir"),
        pg_bin=path("pg-bin"),
        pgbackrest=path("pgbackrest"),
        compose_files=tuple(
            (_base(config, "compose-file") / file).absolute() for file in _list(config, "compose-file")
        ),
        compose_map=path("compose-map"),
    )


def _base(config: pytest.Config, name: str) -> Path:
    """Return what a relative path is relative to: where pytest was called; in the ini file, the root directory."""
    given = config.getoption(f"iop_{name.replace('-', '_')}", None) is not None
    return config.invocation_params.dir if given else config.rootpath


def _value(config: pytest.Config, name: str) -> object | None:
    dest = f"iop_{name.replace('-', '_')}"
    given: object | None = config.getoption(dest, None)
    if given is not None:
        return given
    configured: object | None = config.getini(dest)
    return configured if configured not in (None, "") else None


def _list(config: pytest.Config, name: str) -> list[str]:
    value = _value(config, name)
    return [str(entry) for entry in value] if isinstance(value, (list, tuple)) else []


def _choice(config: pytest.Config, name: str, choices: tuple[str, ...], default: str) -> str:
    value = _value(config, name)
    if value is not None and value not in choices:
        raise pytest.UsageError(f"iop_{name.replace('-', '_')} = {value}: not one of {', '.join(choices)}")
    return default if value is None else str(value)


def _number(config: pytest.Config, name: str, default: Number, *, minimum: Number) -> Number:
    value = _value(config, name)
    if value is None:
        return default
    try:
        number = type(default)(str(value))
    except ValueError:
        kind = "whole number" if isinstance(default, int) else "number"
        raise pytest.UsageError(f"--iop-{name}: {value!r} is not a {kind}") from None
    if not minimum <= number < math.inf:
        raise pytest.UsageError(f"--iop-{name}: {value} is not a number from {minimum:g} on")
    return number
