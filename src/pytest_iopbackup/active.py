"""The plugin at work: registered only when a scenario was selected or a fixture asked for a stack."""

from __future__ import annotations

import os
import secrets
import signal
import sys
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import datetime, timezone
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from pytest_iopbackup.drill import Drill, nothing
from pytest_iopbackup.errors import IopError, UsageError
from pytest_iopbackup.items import ScenarioFile, ScenarioItem
from pytest_iopbackup.listing import registry_of
from pytest_iopbackup.options import Options
from pytest_iopbackup.progress import Narrator
from pytest_iopbackup.proven import Verdict
from pytest_iopbackup.record import RunRecord, ScenarioRecord
from pytest_iopbackup.reports import codec, table, writer
from pytest_iopbackup.scenario.catalog import is_group, select
from pytest_iopbackup.scenario.model import Dataset, Scenario
from pytest_iopbackup.session import Session

_FAILED = pytest.StashKey[bool]()
_RECORD = "iop_record"


class Active:
    """One pytest process's scenarios, stacks and records."""

    def __init__(self, config: pytest.Config, options: Options) -> None:
        self._config = config
        self._options = options
        worker: dict[str, Any] = getattr(config, "workerinput", {})
        self._is_worker = bool(worker)
        self._started = datetime.now(timezone.utc)
        self._run: str = worker.get("iop_run") or f"{self._started:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"
        self._ending = ""
        self._sigterm: Any = None
        self._selected: Sequence[Path] = ()
        self._not_run: Mapping[str, str] = {}
        """Scenarios that were meant but cannot run here, and why."""
        self._records: list[ScenarioRecord] = []
        self._following: Scenario | None = None
        """The scenario that this process runs next."""
        try:
            self.registry = registry_of(config)
            run = self._run.rpartition("-")[2]
            self._session = Session(options, run, worker.get("workerid", "main"), self.registry.faults)
        except (IopError, pytest.UsageError) as error:
            if not options.scenarios:  # then it is a test that has asked for a stack
                raise pytest.fail.Exception(str(error), pytrace=False) from None
            raise pytest.UsageError(str(error)) from None
        if threading.current_thread() is threading.main_thread():
            self._sigterm = signal.signal(signal.SIGTERM, _interrupt)

    def select_scenarios(self) -> None:
        """Find the scenarios asked for, and whether they can run here; raises pytest.UsageError."""
        config = self._config
        try:
            folders = self.registry.scenario_folders
            wanted, base = self._options.scenarios, self._options.scenario_base
            named = select([word for word in wanted if not is_group(word, folders)], folders, base)
            self._selected, self._not_run, kinds = self._session.sort_out(select(wanted, folders, base), named)
            if not self._is_worker:  # a worker's controller has seen to it
                writer.make_parent(self._options.report_dir)
                self._session.prepare(kinds)
        except IopError as error:
            raise pytest.UsageError(str(error)) from None
        paths = [str(path) for path in self._selected]
        only_scenarios = config.args_source is not pytest.Config.ArgsSource.ARGS
        config.args = paths if only_scenarios else [*config.args, *paths]

    def run(self, scenario: Scenario) -> ScenarioRecord:
        """Run a scenario on a fresh stack."""
        with self._announcing_kept():
            return self._session.run(scenario, self._narrator(), self._following)

    def provide_for(self, item: pytest.Item) -> Iterator[Drill]:
        """Give a stack for one test; trouble with it is told in its own words, without a traceback into the harness."""
        try:
            durable = item.get_closest_marker("iop_durable") is not None
            ordered = self._session.provide(
                _dataset(item), lambda _name: nothing, variables=_variables(item), durable=durable
            )
            with self._announcing_kept(), ordered as drill:
                yield drill
                drill.failed = item.stash.get(_FAILED, False)
        except IopError as error:
            pytest.fail(str(error), pytrace=False)

    @contextmanager
    def _announcing_kept(self) -> Iterator[None]:
        """Say at once where a stack's directory was kept: the record of what is interrupted never arrives."""
        before = len(self._session.kept)
        try:
            yield
        finally:
            for directory in self._session.kept[before:]:
                self._say(f"kept: {directory}\n")

    def pytest_collect_file(self, file_path: Path, parent: pytest.Collector) -> ScenarioFile | None:
        """Collect the files of the selected scenarios, and no other YAML."""
        return ScenarioFile.make(parent, file_path, self) if file_path in self._selected else None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, nextitem: pytest.Item | None) -> None:
        """Note what follows: it may have the stack of the trial that runs now."""
        self._following = nextitem.scenario if isinstance(nextitem, ScenarioItem) else None

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a pytest-xdist worker which run it belongs to."""
        node.workerinput["iop_run"] = self._run

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Carry a scenario's record in its report, which crosses from a worker to the controller."""
        report = yield
        item.stash[_FAILED] = item.stash.get(_FAILED, False) or report.failed
        if report.when == "call" and isinstance(item, ScenarioItem) and item.record is not None:
            setattr(report, _RECORD, codec.to_json(item.record))
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Collect the records; on a controller they come from all workers."""
        carried = getattr(report, _RECORD, None)
        if carried is not None and not self._is_worker:
            self._records.append(codec.from_json(carried, ScenarioRecord))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the reports, once per run; a run whose reports cannot be written has not passed."""
        if not self._records:
            return
        record = self._record()
        try:
            directory = writer.write_reports(record, self._options.report_dir)
            self._ending = f"report: {os.path.relpath(directory / writer.MARKDOWN)}"
        except IopError as error:
            self._ending = str(error)
            if session.exitstatus == pytest.ExitCode.OK:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED
        self._config.hook.pytest_iopbackup_run_finished(record=record)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """End with the table."""
        for swept in self._session.swept:
            terminalreporter.write_line(
                f"swept what a killed run had left: {swept.directory}, {len(swept.processes)} processes"
            )
        for name, why in self._not_run.items():
            terminalreporter.write_line(f"NOT RUN: {name}: {why}")
        if self._records:
            record = self._record()
            for title, text in (("backup drills", table.run_table(record)), ("faults", table.fault_table(record))):
                if text:
                    terminalreporter.section(title)
                    terminalreporter.write_line(text)
            for kept in filter(None, (scenario.kept for scenario in self._records)):
                terminalreporter.write_line(f"kept: {kept}")
            terminalreporter.write_line(f"\n{self._ending}")

    def pytest_unconfigure(self) -> None:
        """Leave nothing behind."""
        self._session.close()
        if self._sigterm is not None:
            signal.signal(signal.SIGTERM, self._sigterm)

    def _record(self) -> RunRecord:
        scenarios = tuple(sorted(self._records, key=lambda scenario: scenario.started))
        return RunRecord(
            run=self._run,
            started=self._started,
            finished=datetime.now(timezone.utc),
            versions=scenarios[0].versions,
            scenarios=scenarios,
            not_run=self._not_run,
            verdict=Verdict.worst(scenario.verdict for scenario in scenarios),
        )

    def _narrator(self) -> Narrator:
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        live = (
            terminal is not None and terminal.isatty and not os.environ.get("CI") and os.environ.get("TERM") != "dumb"
        )
        return Narrator(self._say, live=live)

    def _say(self, text: str) -> None:
        """Write past pytest's capture; a pytest-xdist worker has no terminal of its own but shares standard error."""
        capture = self._config.pluginmanager.get_plugin("capturemanager")
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        with capture.global_and_fixture_disabled() if capture else nullcontext():
            if terminal is not None and not self._is_worker:
                terminal.ensure_newline()
                terminal.write(text, flush=True)
            else:
                sys.stderr.write(text)
                sys.stderr.flush()


def _dataset(item: pytest.Item) -> Dataset:
    marker = item.get_closest_marker("iop_dataset")
    if marker is None:
        return Dataset()
    if marker.args or not marker.kwargs.keys() <= {"users", "seed"}:
        raise UsageError(
            f"iop_dataset takes users and seed, each by name; {item.nodeid} gives it something else",
            hint="@pytest.mark.iop_dataset(users=500, seed=7)",
        )
    return Dataset(**marker.kwargs)


def _variables(item: pytest.Item) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for marker in reversed(list(item.iter_markers("iop_variables"))):  # the nearest one last
        if marker.args:
            raise UsageError(
                f"iop_variables takes variables by name; {item.nodeid} gives it something else",
                hint="@pytest.mark.iop_variables(PGBACKREST_CHECK_FREQUENCY=1)",
            )
        found.update({name: str(value) for name, value in marker.kwargs.items()})
    return found


def _interrupt(number: int, _: FrameType | None) -> None:
    """Let SIGTERM end the run as Ctrl-C does: everything is taken down in order."""
    raise KeyboardInterrupt(signal.Signals(number).name)
