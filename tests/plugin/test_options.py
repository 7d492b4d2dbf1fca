"""Options: command line, ini twin, default; in that order."""

from __future__ import annotations

from pathlib import Path

import pytest

from project import Project, all_output
from pytest_iopbackup.options import Options, read_options

# Option, what is written, what comes of it; places are relative to where they were written.
SET = [
    ("scenario", "pitr", "scenarios", ("pitr",)),
    ("stack", "local", "stack", "local"),
    ("seed", "0", "seed", 0),
    ("keep", "failed", "keep", "failed"),
    ("timeout-scale", "2.5", "timeout_scale", 2.5),
    ("report-dir", "out/here", "report_dir", Path("out/here")),
    ("work-dir", "w", "work_dir", Path("w")),
    ("pg-bin", "/opt/pg/bin", "pg_bin", Path("/opt/pg/bin")),
    ("pgbackrest", "/opt/pgbackrest", "pgbackrest", Path("/opt/pgbackrest")),
]


def read(pytester: pytest.Pytester, *arguments: str, **ini: str) -> Options:
    """Read the options of a run called from ``sub``, below the ini file's directory."""
    lines = "".join(f"iop_{name} = {value}\n" for name, value in ini.items())
    pytester.makeini(f"[pytest]\n{lines}")
    folder = pytester.path / "sub"
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return read_options(pytester.parseconfig(f"--rootdir={pytester.path}", f"--confcutdir={folder}", *arguments))


def test_without_options_there_are_defaults(pytester: pytest.Pytester) -> None:
    options = read(pytester)
    assert options == Options(
        report_dir=pytester.path / "reports", scenario_base=pytester.path, seed=42, keep="never", stack="auto"
    )


@pytest.mark.parametrize(("name", "written", "field", "expected"), SET, ids=[row[0] for row in SET])
def test_the_command_line_and_the_ini_file_set_the_same(
    pytester: pytest.Pytester, name: str, written: str, field: str, expected: object
) -> None:
    by_option = getattr(read(pytester, f"--iop-{name}={written}"), field)
    by_ini = getattr(read(pytester, **{name.replace("-", "_"): written}), field)
    if isinstance(expected, Path):
        assert by_option == pytester.path / "sub" / expected
        assert by_ini == pytester.path / expected
    else:
        assert by_option == by_ini == expected


@pytest.mark.parametrize(("name", "written", "field", "expected"), SET, ids=[row[0] for row in SET])
def test_the_command_line_wins_also_with_a_value_that_is_falsy(
    pytester: pytest.Pytester, name: str, written: str, field: str, expected: object
) -> None:
    other = {"stack": "auto", "seed": "7", "keep": "always", "timeout-scale": "9"}.get(name, "other")
    options = read(pytester, f"--iop-{name}={written}", **{name.replace("-", "_"): other})
    value = getattr(options, field)
    assert value == (pytester.path / "sub" / expected if isinstance(expected, Path) else expected)


def test_redact_is_off_until_it_is_asked_for(pytester: pytest.Pytester) -> None:
    assert not read(pytester).redact
    assert read(pytester, "--iop-redact").redact
    assert read(pytester, redact="true").redact
    assert not read(pytester, redact="false").redact


def test_scenarios_add_up_and_their_paths_start_where_they_were_written(pytester: pytest.Pytester) -> None:
    given = read(pytester, "--iop-scenario=pitr", "--iop-scenario=./a.yaml", scenario="full")
    assert (given.scenarios, given.scenario_base) == (("pitr", "./a.yaml"), pytester.path / "sub")
    configured = read(pytester, scenario="full drills/a.yaml")
    assert (configured.scenarios, configured.scenario_base) == (("full", "drills/a.yaml"), pytester.path)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--iop-stack=docker"], "invalid choice: 'docker'"),
        (["--iop-keep=yes"], "invalid choice: 'yes'"),
        (["--iop-seed=abc"], "invalid int value: 'abc'"),
        (["--iop-seed=-1"], "--iop-seed: -1 is not a number from 0 on"),
        (["--iop-timeout-scale=0"], "--iop-timeout-scale: 0.0 is not a number from 0.01 on"),
        (["--iop-timeout-scale=nan"], "--iop-timeout-scale: nan is not a number from 0.01 on"),
        (["--iop-timeout-scale=inf"], "--iop-timeout-scale: inf is not a number from 0.01 on"),
        (["--iop-timeout-scale=fast"], "invalid float value: 'fast'"),
        (["-o", "iop_stack=docker"], "iop_stack = docker: not one of auto, local, compose"),
        (["-o", "iop_keep=yes"], "iop_keep = yes: not one of never, failed, always"),
        (["-o", "iop_seed=abc"], "--iop-seed: 'abc' is not a whole number"),
        (["-o", "iop_seed=1.5"], "--iop-seed: '1.5' is not a whole number"),
        (["-o", "iop_timeout_scale=slow"], "--iop-timeout-scale: 'slow' is not a number"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_value_that_makes_no_sense_is_refused_in_one_line(project: Project, arguments: list[str], words: str) -> None:
    result = project.run(*arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert words in result.stderr.str()
    assert "Traceback" not in all_output(result)
