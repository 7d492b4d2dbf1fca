"""What all scenarios and tests of one pytest process share: the workspace, the template, how to get a stack."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_iopbackup import __version__, resources
from pytest_iopbackup.cluster import checks
from pytest_iopbackup.dataset.load import load
from pytest_iopbackup.dataset.spec import DatasetSpec
from pytest_iopbackup.drill import Drill
from pytest_iopbackup.errors import UsageError
from pytest_iopbackup.limits import Limits
from pytest_iopbackup.progress import Narrator
from pytest_iopbackup.runner import Setting, run_scenario
from pytest_iopbackup.scenario.model import Dataset, Scenario
from pytest_iopbackup.stack.base import Service
from pytest_iopbackup.stack.binaries import find_binaries
from pytest_iopbackup.stack.local import LocalSettings, LocalStack
from pytest_iopbackup.stack.template import Stage, clone, ensure_template
from pytest_iopbackup.stack.workspace import Swept, Workspace, base_directory, keep, sweep

if TYPE_CHECKING:
    from pytest_iopbackup.options import Options
    from pytest_iopbackup.record import ScenarioRecord


class Session:
    """One pytest process of a run. ``run`` names the run, which pytest-xdist's workers share; ``process`` this one."""

    def __init__(self, options: Options, run: str, process: str = "main") -> None:
        if options.stack == "compose":
            raise UsageError(
                "--iop-stack=compose is not there yet: it comes with the deployed system",
                hint="use --iop-stack=local, which runs PostgreSQL and pgBackRest as child processes",
            )
        self.options = options
        self.limits = Limits().scaled(options.timeout_scale)
        self.swept: tuple[Swept, ...] = ()
        self.kept: list[Path] = []
        """Directories of stacks that ``--iop-keep`` left in place."""
        self._run = run
        self._process = process
        self._stacks = 0
        self._workspace: Workspace | None = None

    @cached_property
    def settings(self) -> LocalSettings:
        """Where the programs are. Raises MachineError."""
        return LocalSettings(binaries=find_binaries(self.options.pg_bin, self.options.pgbackrest), limits=self.limits)

    @property
    def workspace(self) -> Workspace:
        """The run's directory, made or joined at first use after a sweep. Raises MachineError."""
        if self._workspace is None:
            base = base_directory(self.options.work_dir)
            self.swept = sweep(base)
            self._workspace = Workspace(base, self._run)
        return self._workspace

    def prepare(self) -> None:
        """Find out before anything runs whether it can. Raises MachineError."""
        _ = self.settings
        _ = self.workspace

    def versions(self) -> Mapping[str, str]:
        """Return the versions of everything that had a part."""
        programs = self.settings.binaries
        packages = ("pytest", "psycopg", "faker")
        return {
            "pytest-iopbackup": __version__,
            "postgresql": programs.postgresql_version,
            "pgbackrest": programs.pgbackrest_version,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in packages},
            "system": platform.platform(),
        }

    def run(self, scenario: Scenario, narrator: Narrator) -> ScenarioRecord:
        """Run a scenario on a fresh stack."""
        kept_before = len(self.kept)
        record = run_scenario(
            scenario,
            Setting(
                provide=self.provide,
                seed=self.options.seed,
                stack="local",
                versions=self.versions(),
                configuration=_digests(resources.stack_half()),
            ),
            narrator,
        )
        kept = self.kept[kept_before:]
        return replace(record, kept=str(kept[0]) if kept else None)

    @contextmanager
    def provide(self, dataset: Dataset, stage: Stage) -> Iterator[Drill]:
        """Give a running, green stack with the dataset in it; it is removed afterwards.

        It is a copy of the run's template for that dataset, which the first use builds; ``stage`` hears what goes on.
        A run that is interrupted has not failed: ``--iop-keep=failed`` then keeps nothing.
        """
        seed = self.options.seed if dataset.seed is None else dataset.seed
        spec = DatasetSpec(seed=seed, users=dataset.users)

        def load_dataset(stack: LocalStack) -> None:
            with stack.connect() as connection:
                load(connection, spec, stage(f"seeding {spec.users} users"))

        key = f"{spec.seed}-{spec.users}"
        template = ensure_template(
            self.workspace.path,
            key,
            self.settings,
            stack_half=resources.stack_half(),
            seed=load_dataset,
            stage=stage,
            failed=lambda stack: self._keep(stack, failed=True),
        )
        stage("copying the template")
        self._stacks += 1
        directory = self.workspace.path / f"s-{self._process}-{self._stacks}"
        stack = clone(template, directory, self.settings)
        failed = False
        try:
            stage("first checks")
            since = datetime.now(timezone.utc)
            stack.start_database()
            stack.start(Service.BACKUP)
            stack.start(Service.CHECK)
            checks.await_green(stack, since, self.limits)
            evidence = directory / "evidence"
            evidence.mkdir()
            drill = Drill(stack, evidence, seed=seed, limits=self.limits)
            yield drill
            failed = drill.failed
        except Exception:
            failed = True
            raise
        finally:
            self._keep(stack, failed=failed)
            stack.close()

    def _keep(self, stack: LocalStack, *, failed: bool) -> None:
        """Let a stack's directory stay when the stack is closed, if ``--iop-keep`` says so."""
        if self.options.keep == "always" or (self.options.keep == "failed" and failed):
            stack.kept = True
            keep(stack.directory)
            self.kept.append(stack.directory)

    def close(self) -> None:
        """Leave the workspace; the last process of the run removes it."""
        if self._workspace is not None:
            self._workspace.close()
            self._workspace = None


def _digests(folder: Path) -> Mapping[str, str]:
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir()) if file.is_file()
    }
