"""Local stacks: each is a copy of the run's template for its dataset, which the first one builds."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from pytest_iopbackup import resources
from pytest_iopbackup.limits import Limits
from pytest_iopbackup.stack.base import Service
from pytest_iopbackup.stack.binaries import find_binaries
from pytest_iopbackup.stack.local import LocalStack
from pytest_iopbackup.stack.local_services import LocalSettings
from pytest_iopbackup.stack.supply import Order
from pytest_iopbackup.stack.template import clone, ensure_template


class LocalSupply:
    """Brings local stacks up; ``pg_bin`` and ``pgbackrest`` name the programs' places, else they are searched for."""

    kind = "local"

    def __init__(self, pg_bin: Path | None, pgbackrest: Path | None, limits: Limits) -> None:
        self._places = pg_bin, pgbackrest
        self._limits = limits

    @cached_property
    def _settings(self) -> LocalSettings:
        return LocalSettings(binaries=find_binaries(*self._places), limits=self._limits)

    def prepare(self) -> None:
        """See :class:`~pytest_iopbackup.stack.supply.Supply`."""
        _ = self._settings

    def versions(self) -> Mapping[str, str]:
        """See :class:`~pytest_iopbackup.stack.supply.Supply`."""
        programs = self._settings.binaries
        return {"postgresql": programs.postgresql_version, "pgbackrest": programs.pgbackrest_version}

    def configuration(self) -> Mapping[str, str]:
        """See :class:`~pytest_iopbackup.stack.supply.Supply`."""
        return resources.digests(resources.stack_half())

    def bring(self, order: Order) -> LocalStack:
        """See :class:`~pytest_iopbackup.stack.supply.Supply`."""
        template = ensure_template(order, self._settings, resources.stack_half())
        order.stage("copying the template")
        stack = clone(template, order, self._settings)
        try:
            order.stage("first checks")
            stack.start_database()
            stack.start(Service.BACKUP)
            stack.start(Service.CHECK)
        except BaseException as error:
            if isinstance(error, Exception):
                order.failed(stack)
            stack.close()
            raise
        return stack
