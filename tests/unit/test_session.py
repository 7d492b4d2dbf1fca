"""Which stack kind a run takes, and what it says where none can be had."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_iopbackup.errors import IopError, MachineError, UsageError
from pytest_iopbackup.options import Options
from pytest_iopbackup.session import Session
from pytest_iopbackup.stack.compose_supply import ComposeSupply
from pytest_iopbackup.stack.local_supply import LocalSupply

NO_POSTGRESQL = MachineError("PostgreSQL's programs not found. Checked: nothing", hint="install them")
NO_DOCKER = MachineError("Docker not found. Checked: PATH", hint="install it")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> dict[str, IopError | None]:
    """Give what each kind lacks; nothing at first."""
    lacks: dict[str, IopError | None] = {"local": None, "compose": None}

    def prepare(supply: LocalSupply | ComposeSupply) -> None:
        if (error := lacks[supply.kind]) is not None:
            raise error

    monkeypatch.setattr(LocalSupply, "prepare", prepare)
    monkeypatch.setattr(ComposeSupply, "prepare", prepare)
    return lacks


def test_local_where_its_programs_are(machine: dict[str, IopError | None]) -> None:
    assert Session(Options(), "run").supply().kind == "local"


def test_compose_otherwise(machine: dict[str, IopError | None]) -> None:
    machine["local"] = NO_POSTGRESQL
    assert Session(Options(), "run").supply().kind == "compose"


def test_where_neither_works_both_reasons_and_remedies_are_said(machine: dict[str, IopError | None]) -> None:
    machine.update(local=NO_POSTGRESQL, compose=NO_DOCKER)
    with pytest.raises(MachineError) as caught:
        Session(Options(), "run").supply()
    for words in (NO_POSTGRESQL.message, NO_DOCKER.message, "install them", "install it"):
        assert words in str(caught.value)


def test_a_compose_file_means_compose_and_named_programs_mean_local(machine: dict[str, IopError | None]) -> None:
    machine.update(local=NO_POSTGRESQL, compose=NO_DOCKER)
    assert Session(Options(compose_files=(Path("compose.yaml"),)), "run").supply().kind == "compose"
    assert Session(Options(pg_bin=Path("/opt/bin")), "run").supply().kind == "local"
    assert Session(Options(pgbackrest=Path("/opt/pgbackrest")), "run").supply().kind == "local"


def test_a_scenario_that_is_named_must_be_able_to_run(machine: dict[str, IopError | None], tmp_path: Path) -> None:
    path = tmp_path / "theirs.yaml"
    path.write_text("name: theirs\ntitle: T\nstack: compose\nsteps:\n  - mark: a\n  - expect: {rows: a}\n")
    assert Session(Options(), "run").sort_out([path], {path}) == ([path], {}, {"compose"})
    machine["compose"] = NO_DOCKER
    with pytest.raises(MachineError, match="Docker not found"):
        Session(Options(), "run").sort_out([path], {path})
    assert Session(Options(), "run").sort_out([path], set()) == ([], {"theirs": NO_DOCKER.message}, set())
    with pytest.raises(UsageError, match="runs on the compose stack only"):
        Session(Options(stack="local"), "run").sort_out([path], {path})
