"""What all scenarios and tests of one pytest process share: the workspace, where stacks come from, how to get one."""

from __future__ import annotations

import platform
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from functools import cached_property
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
from pytest_iopbackup.relay import WAL_SEGMENT, Relay, Runner, Wanted, wanted_by
from pytest_iopbackup.runner import Setting, run_scenario
from pytest_iopbackup.scenario.loader import load_scenario
from pytest_iopbackup.scenario.model import Dataset, Scenario
from pytest_iopbackup.stack.base import Stack
from pytest_iopbackup.stack.local_supply import LocalSupply
from pytest_iopbackup.stack.location import base_directories, base_directory
from pytest_iopbackup.stack.supply import Order, Stage, Supply
from pytest_iopbackup.stack.workspace import Swept, Workspace, keep, sweep

if TYPE_CHECKING:
    from pytest_iopbackup.faults.base import Fault
    from pytest_iopbackup.options import Options
    from pytest_iopbackup.record import ScenarioRecord


class Session:
    """One pytest process of a run. ``run`` names the run, which pytest-xdist's workers share; ``process`` this one."""

    def __init__(
        self, options: Options, run: str, process: str = "main", faults: Mapping[str, type[Fault]] | None = None
    ) -> None:
        self.options = options
        self.faults: Mapping[str, type[Fault]] = faults or {}
        self.limits = Limits().scaled(options.timeout_scale)
        self.swept: tuple[Swept, ...] = ()
        self.kept: list[Path] = []
        """Directories of stacks that ``--iop-keep`` left in place."""
        self._run = run
        self._process = process
        self._stacks = 0
        self._workspace: Workspace | None = None
        self._relay = Relay()

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
            places = (base,) if self.options.work_dir else base_directories()
            self.swept = tuple(swept for place in places for swept in sweep(place))
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
            scenario = _readable(path)
            kind = scenario.stack if scenario else None
            try:
                self._refuse_kind(path, kind)
                if scenario:
                    self._refuse_faults(scenario)
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

    def _refuse_faults(self, scenario: Scenario) -> None:
        """Raise UsageError for a fault that cannot be done here; of one that is not known, collection tells."""
        known = [self.faults[name] for name in scenario.faults if name in self.faults]
        obstacles = [fault.obstacle(self.supply(scenario.stack).kind) for fault in known]
        hint = "run it where it can be done; by tag, or with all faults, it counts as not run"
        for obstacle in filter(None, obstacles):
            raise UsageError(obstacle, hint=hint)

    def prepare(self, kinds: Iterable[str | None]) -> None:
        """Find out before anything runs whether it can. Raises MachineError or UsageError."""
        for kind in sorted(set(kinds), key=str):
            self.supply(kind).prepare()
        _ = self.workspace

    def run(self, scenario: Scenario, narrator: Narrator, following: Scenario | None = None) -> ScenarioRecord:
        """Run a scenario on a fresh stack, or on one that the trial before has left green.

        ``following`` is the scenario that this process runs next.
        """
        kept_before = len(self.kept)
        wanted = self._wanted(scenario)
        onward = (
            self.options.keep != "always"
            and scenario.is_trial
            and following is not None
            and following.is_trial
            and self._wanted(following) == wanted
        )
        supply = self.supply(scenario.stack)
        record = run_scenario(
            scenario,
            Setting(
                provide=lambda _, stage: self._provide(wanted, stage, scenario.name, onward=onward),
                seed=self.options.seed,
                stack=supply.kind,
                versions={**supply.versions(), **_versions()},
                configuration=supply.configuration(),
            ),
            narrator,
        )
        kept = self.kept[kept_before:]
        return replace(record, kept=str(kept[0]) if kept else None)

    def _wanted(self, scenario: Scenario) -> Wanted:
        return wanted_by(
            scenario, self.supply(scenario.stack).kind, self._spec(scenario.dataset), self.faults, self.limits.scale
        )

    def _spec(self, dataset: Dataset) -> DatasetSpec:
        return DatasetSpec(seed=self.options.seed if dataset.seed is None else dataset.seed, users=dataset.users)

    def provide(
        self, dataset: Dataset, stage: Stage, *, variables: Mapping[str, str] | None = None, durable: bool = False
    ) -> AbstractContextManager[Drill]:
        """Give a running, green stack with the dataset in it; it is removed afterwards.

        ``stage`` hears what goes on. ``durable``: its server is to crash.
        """
        wanted = Wanted(
            kind=self.supply().kind,
            spec=self._spec(dataset),
            variables=variables or {},
            sizes={},
            wal_segment=WAL_SEGMENT,
            durable=durable,
        )
        return self._provide(wanted, stage, "a test", onward=False)

    @contextmanager
    def _provide(self, wanted: Wanted, stage: Stage, name: str, *, onward: bool) -> Iterator[Drill]:
        """See :meth:`provide`. A run that is interrupted has not failed: ``--iop-keep=failed`` then keeps nothing.

        ``onward``: the next scenario may have it, if a trial has left it green.
        """
        since = datetime.now(timezone.utc)
        runner = self._relay.take(wanted)
        stack = runner.stack if runner else self._bring(wanted, stage)
        before = runner.by if runner else ()
        drill: Drill | None = None
        failed = False
        try:
            if not runner:
                checks.await_green(stack, since, self.limits)
            evidence = stack.directory / (f"evidence-{len(before) + 1}" if before else "evidence")
            evidence.mkdir()
            drill = Drill(
                stack,
                evidence,
                seed=wanted.spec.seed,
                limits=self.limits,
                variables=wanted.variables,
                faults=self.faults,
                before=before,
                writes=runner.writes if runner else 0,
                redact=self.options.redact,
            )
            yield drill
            failed = drill.failed
        except Exception:
            failed = True
            raise
        finally:
            fit = onward and drill is not None and drill.unharmed and not failed
            writes = drill.writes if drill else 0
            if not fit or not self._relay.offer(Runner(wanted=wanted, stack=stack, by=(*before, name), writes=writes)):
                self._keep(stack, failed=failed)
                stack.close()

    def _bring(self, wanted: Wanted, stage: Stage) -> Stack:
        def load_dataset(stack: Stack) -> None:
            with stack.connect() as connection:
                load(connection, wanted.spec, stage(f"seeding {wanted.spec.users} users"))

        workspace = self.workspace.path
        self._stacks += 1
        return self.supply(wanted.kind).bring(
            Order(
                workspace=workspace,
                directory=workspace / f"s-{self._process}-{self._stacks}",
                key=f"{wanted.spec.seed}-{wanted.spec.users}",
                seed=load_dataset,
                variables=wanted.variables,
                sizes=wanted.sizes,
                wal_segment=wanted.wal_segment,
                durable=wanted.durable,
                stage=stage,
                failed=lambda stack: self._keep(stack, failed=True),
            )
        )

    def _keep(self, stack: Stack, *, failed: bool) -> None:
        """Let a stack's directory stay when the stack is closed, if ``--iop-keep`` says so."""
        if self.options.keep == "always" or (self.options.keep == "failed" and failed):
            stack.kept = True
            keep(stack.directory)
            self.kept.append(stack.directory)

    def close(self) -> None:
        """Leave the workspace; the last process of the run removes it."""
        self._relay.close()
        if self._workspace is not None:
            self._workspace.close()
            self._workspace = None


def _readable(path: Path) -> Scenario | None:
    """Return a scenario; None for a malformed file, which is told of when it is collected."""
    try:
        return load_scenario(path)
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
