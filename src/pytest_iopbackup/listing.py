"""``--iop-list``: the scenarios and what each proves."""

from __future__ import annotations

import pytest

from pytest_iopbackup.errors import IopError
from pytest_iopbackup.registry import Registry
from pytest_iopbackup.scenario.catalog import scenario_files
from pytest_iopbackup.scenario.loader import load_scenario


def registry_of(config: pytest.Config) -> Registry:
    """Return what the package and third parties registered."""
    registry = Registry()
    try:
        config.hook.pytest_iopbackup_register(registry=registry)
    except IopError as error:
        raise pytest.UsageError(str(error)) from None
    return registry


def list_scenarios(config: pytest.Config) -> int:
    """Print every scenario; return pytest's exit code, which is not 0 when a file is malformed."""
    writer = config.get_terminal_writer()
    exit_code = pytest.ExitCode.OK
    for name, path in sorted(scenario_files(registry_of(config).scenario_folders).items()):
        try:
            scenario = load_scenario(path)
        except IopError as error:
            writer.line(f"{name}: {error}", red=True)
            exit_code = pytest.ExitCode.USAGE_ERROR
            continue
        writer.line(f"{name:<16} {scenario.title}")
        if scenario.tags:
            writer.line(f"{'':<16} tags: {', '.join(scenario.tags)}")
    return int(exit_code)
