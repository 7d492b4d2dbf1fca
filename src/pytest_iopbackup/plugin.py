"""pytest's way in: options, the scenario listing, and fixtures. Whatever costs time is imported when it is used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from pytest_iopbackup import hookspecs
from pytest_iopbackup.options import add_options, read_options

if TYPE_CHECKING:
    from pytest_iopbackup.active import Active
    from pytest_iopbackup.drill import Drill
    from pytest_iopbackup.registry import Registry

_ACTIVE = "iopbackup-active"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options and their ini twins."""
    add_options(parser)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Add the extension points."""
    pluginmanager.add_hookspecs(hookspecs)


@pytest.hookimpl(tryfirst=True)
def pytest_iopbackup_register(registry: Registry) -> None:
    """Add what comes with the package, through the same hook as everybody else."""
    from pytest_iopbackup.registry import register_builtins  # noqa: PLC0415 - not paid for by runs without scenarios

    register_builtins(registry)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """Answer ``--iop-list``."""
    if not config.getoption("iop_list"):
        return None
    from pytest_iopbackup.listing import list_scenarios  # noqa: PLC0415 - not paid for by other runs

    config._do_configure()  # as pytest does for --markers and --fixtures
    try:
        return list_scenarios(config)
    finally:
        config._ensure_unconfigure()


def pytest_configure(config: pytest.Config) -> None:
    """Select the scenarios, and find out before anything runs whether they can."""
    config.addinivalue_line("markers", "iop_dataset(users=2000, seed=42): what iop_stack is seeded with")
    config.addinivalue_line("markers", "iop_variables(NAME=value): variables of the system that iop_stack deploys")
    config.addinivalue_line(
        "markers", "iop_durable: the server of iop_stack writes through (fsync), for it is to crash"
    )
    options = read_options(config)
    if options.scenarios and not config.getoption("iop_list"):
        activate(config).select_scenarios()


def activate(config: pytest.Config) -> Active:
    """Return the part of the plugin that works, registering it at first use."""
    active: Active | None = config.pluginmanager.get_plugin(_ACTIVE)
    if active is None:
        from pytest_iopbackup.active import Active  # noqa: PLC0415 - not paid for by runs that do not need it

        active = Active(config, read_options(config))
        config.pluginmanager.register(active, _ACTIVE)
    return active


@pytest.fixture
def iop_stack(request: pytest.FixtureRequest) -> Iterator[Drill]:
    """Give a fresh, running, seeded stack with a full and a differential backup, and remove it after the test.

    ``@pytest.mark.iop_dataset(users=500, seed=7)`` chooses other data, ``@pytest.mark.iop_variables(NAME=value)`` sets
    variables of the deployed system, ``@pytest.mark.iop_durable`` lets a local server run with ``fsync``.
    See :class:`pytest_iopbackup.drill.Drill`.
    """
    yield from activate(request.config).provide_for(request.node)
