"""What all scenarios and tests of one pytest process share: the workspace, where stacks come from, how to get one."""

from __future__ import annotations

import platform
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from functools import cached_property, partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_iopbackup import __version__
from pytest_iopbackup.cluster import checks
from pytest_iopbackup.dataset.load import load
from pytest_iopbackup.dataset.spec import DatasetSpec
from pytest_iopbackup.drill import Drill
from pytest_iopbackup.errors import MachineError, ScenarioError, UsageError
from pytest_iopbackup.limits import Limits
from pytest_iopbackup.progress import Narrator
from pytest_iopbackup.runner import Setting, run_scenario
from pytest_iopbackup.scenario.loader import load_scenario
from pytest_iopbackup.scenario.model import Dataset, Scenario
from pytest_iopbackup.stack.base import Stack
from pytest_iopbackup.stack.local_supply import LocalSupply
from pytest_iopbackup.stack.supply import Order, Stage, Supply
from pytest_iopbackup.stack.workspace import Swept, Workspace, base_directory, keep, sweep

if TYPE_CHECKING:
    from pytest_iopbackup.options import Options
    from pytest_iopbackup.record import ScenarioRecord


class Session:
    """One pytest process of a run. ``run`` names the run, which pytest-xdist's workers share; ``process`` this one."""

    def __init__(self, options: Options, run: str, process: str = "main") -> None:
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
    def _local(self) -> Supply:
        return LocalSupply(self.options.pg_bin, self.options.pgbackrest, self.limits)

    @cached_property
    def _compose(self) -> Supply:
        from pytest_iopbackup.stack.compose_supply import ComposeSupply  # noqa: PLC0415 - Docker's library costs 0.3 s

        return ComposeSupply(self.options.compose_files, self.options.compose_map, self.limits)

    @cached_property
    def _automatic(self) -> Supply:
        """The local supply where PostgreSQL and pgBackRest are, else Compose. Raises MachineError with both reasons."""
        try:
            self._local.prepare()
        except MachineError as local:
            try:
                self._compose.prepare()
            except MachineError as compose:
                raise MachineError(
                    f"no stack can run here.\nLocal: {local.message}\nCompose: {compose.message}",
                    hint=f"either {local.hint}; or {compose.hint}",
                ) from None
            return self._compose
        return self._local

    def supply(self, kind: str | None = None) -> Supply:
        """Return where stacks of a kind come from; of the kind that ``--iop-stack`` says, without one."""
        options = self.options
        kind = kind or options.stack
        if kind == "auto" and options.compose_files:
            kind = "compose"
        elif kind == "auto" and (options.pg_bin or options.pgbackrest):
            kind = "local"
        if kind == "auto":
            return self._automatic
        return self._compose if kind == "compose" else self._local

    @property
    def workspace(self) -> Workspace:
        """The run's directory, made or joined at first use after a sweep. Raises MachineError."""
        if self._workspace is None:
            base = base_directory(self.options.work_dir)
            self.swept = sweep(base)
            self._workspace = Workspace(base, self._run)
        return self._workspace

    def sort_out(
        self, paths: Sequence[Path], named: Collection[Path]
    ) -> tuple[Sequence[Path], Mapping[str, str], Collection[str | None]]:
        """Return the scenario files that can run here, those that cannot and why, and the stack kinds needed.

        One that is ``named``, rather than meant by a group, must be able to run. Raises UsageError or MachineError.
        """
        selected: list[Path] = []
        not_run: dict[str, str] = {}
        kinds: set[str | None] = set()
        for path in paths:
            kind = _only_kind(path)
            try:
                self._refuse_kind(path, kind)
            except (UsageError, MachineError) as error:
                if path in named:
                    raise
                not_run[path.stem] = error.message
                continue
            selected.append(path)
            kinds.add(kind)
        return selected, not_run, kinds

    def _refuse_kind(self, path: Path, kind: str | None) -> None:
        if kind is None:
            return
        if self.options.stack not in {"auto", kind}:
            raise UsageError(f"scenario {path.stem!r} runs on the {kind} stack only", hint=f"--iop-stack={kind}")
        self.supply(kind).prepare()

    def prepare(self, kinds: Iterable[str | None]) -> None:
        """Find out before anything runs whether it can. Raises MachineError or UsageError."""
        for kind in sorted(set(kinds), key=str):
            self.supply(kind).prepare()
        _ = self.workspace

    def run(self, scenario: Scenario, narrator: Narrator) -> ScenarioRecord:
        """Run a scenario on a fresh stack."""
        kept_before = len(self.kept)
        supply = self.supply(scenario.stack)
        record = run_scenario(
            scenario,
            Setting(
                provide=partial(self.provide, supply=supply, variables=scenario.variables),
                seed=self.options.seed,
                stack=supply.kind,
                versions={**supply.versions(), **_versions()},
                configuration=supply.configuration(),
            ),
            narrator,
        )
        kept = self.kept[kept_before:]
        return replace(record, kept=str(kept[0]) if kept else None)

    @contextmanager
    def provide(
        self,
        dataset: Dataset,
        stage: Stage,
        *,
        supply: Supply | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> Iterator[Drill]:
        """Give a running, green stack with the dataset in it; it is removed afterwards.

        ``stage`` hears what goes on. A run that is interrupted has not failed:
        ``--iop-keep=failed`` then keeps nothing.
        """
        seed = self.options.seed if dataset.seed is None else dataset.seed
        spec = DatasetSpec(seed=seed, users=dataset.users)

        def load_dataset(stack: Stack) -> None:
            with stack.connect() as connection:
                load(connection, spec, stage(f"seeding {spec.users} users"))

        workspace = self.workspace.path
        self._stacks += 1
        directory = workspace / f"s-{self._process}-{self._stacks}"
        since = datetime.now(timezone.utc)
        stack = (supply or self.supply()).bring(
            Order(
                workspace=workspace,
                directory=directory,
                key=f"{spec.seed}-{spec.users}",
                seed=load_dataset,
                variables=variables or {},
                stage=stage,
                failed=lambda stack: self._keep(stack, failed=True),
            )
        )
        failed = False
        try:
            checks.await_green(stack, since, self.limits)
            evidence = directory / "evidence"
            evidence.mkdir()
            drill = Drill(stack, evidence, seed=seed, limits=self.limits, variables=variables)
            yield drill
            failed = drill.failed
        except Exception:
            failed = True
            raise
        finally:
            self._keep(stack, failed=failed)
            stack.close()

    def _keep(self, stack: Stack, *, failed: bool) -> None:
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


def _only_kind(path: Path) -> str | None:
    """Return the only stack kind that a scenario runs on; a malformed file is told of when it is collected."""
    try:
        return load_scenario(path).stack
    except ScenarioError:
        return None


def _versions() -> Mapping[str, str]:
    """Return the versions of the harness's own parts."""
    packages = ("pytest", "psycopg", "faker")
    return {
        "pytest-iopbackup": __version__,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
        "system": platform.platform(),
    }
