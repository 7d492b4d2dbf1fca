"""Scenario files: what is accepted, and what each mistake is answered with."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_iopbackup import resources
from pytest_iopbackup.errors import IopError, ScenarioError, UsageError
from pytest_iopbackup.scenario import model
from pytest_iopbackup.scenario.catalog import scenario_files, select
from pytest_iopbackup.scenario.loader import load_scenario

GOOD = """\
name: drill
title: It proves something
tags: [restore]
dataset: {users: 100, seed: 7}
steps:
  - backup: {type: full, as: first}
  - write: {transactions: 10}
  - mark: here
  - restore: {to: here, by: time}
  - expect: {rows: here}
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "drill.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_good_file_becomes_a_model(tmp_path: Path) -> None:
    scenario = load_scenario(write(tmp_path, GOOD))
    assert scenario.name == "drill"
    assert scenario.dataset == model.Dataset(seed=7, users=100)
    assert [step.action for step in scenario.steps] == [
        model.Backup("full", "first"),
        model.Write(10, 4),
        model.Mark("here"),
        model.Restore(mark="here", by="time"),
        model.Expect("here"),
    ]
    assert [step.line for step in scenario.steps] == [6, 7, 8, 9, 10]


def test_marks_taken_while_writing_can_be_referred_to(tmp_path: Path) -> None:
    written = "write: {transactions: 10, marks: 3}\n  - write: {transactions: 9, marks: 1, prefix: late}"
    text = GOOD.replace("write: {transactions: 10}", written).replace("to: here", "to: load-3")
    steps = load_scenario(write(tmp_path, text.replace("rows: here", "rows: late-1"))).steps
    assert [step.action for step in steps if step.verb == "write"] == [
        model.Write(10, 4, 3),
        model.Write(9, 4, 1, "late"),
    ]
    assert model.Restore(mark="load-3", by="time") in [step.action for step in steps]
    with pytest.raises(ScenarioError, match="mark 'load-3' is defined twice"):
        load_scenario(write(tmp_path, text.replace("mark: here", "mark: load-3")))


def test_a_crash_takes_its_numbers_and_makes_the_scenario_one_that_crashes(tmp_path: Path) -> None:
    assert not load_scenario(write(tmp_path, GOOD)).crashes
    step = "  - crash: {times: 3, archive_timeout: 2}\n"
    scenario = load_scenario(write(tmp_path, GOOD + step))
    assert scenario.steps[-1].action == model.Crash(times=3, clients=4, archive_timeout=2)
    assert scenario.crashes
    assert not scenario.is_trial
    assert scenario.steps[-1].action.title == "crash 3 times under 4 clients, archive_timeout 2 s"
    assert model.Crash(times=2).title == "crash 2 times under 4 clients"


def test_sweeps_and_targets_are_read(tmp_path: Path) -> None:
    steps = "  - mark: there\n  - targets: every\n  - sweep: {points: 5}\n  - sweep: {points: 7, workers: 2}\n"
    *_, targets, one, two = load_scenario(write(tmp_path, GOOD + steps)).steps
    assert [targets.action, one.action, two.action] == [model.Targets(), model.Sweep(5), model.Sweep(7, 2)]
    assert two.action.title == "sweep: 7 random recovery points, 2 side by side"


@pytest.mark.parametrize("path", sorted(resources.scenarios().rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_scenario_that_comes_with_the_package_is_valid_and_proves_something(path: Path) -> None:
    scenario = load_scenario(path)
    assert any(
        isinstance(step.action, (model.Expect, model.Fault, model.Targets, model.Sweep)) for step in scenario.steps
    )


@pytest.mark.parametrize(
    ("change", "line", "words"),
    [
        (("title:", "titel:"), 2, "unknown key 'titel'"),
        (("title:", "titel:"), 2, "did you mean 'title'?"),
        (("  - write:", "  - wirte:"), 7, "did you mean 'write'?"),
        (("transactions: 10", "transaction: 10"), 7, "did you mean 'transactions'?"),
        (("transactions: 10", "transactions: ten"), 7, "'ten' is not a whole number"),
        (("transactions: 10", "transactions: 0"), 7, "less than the minimum"),
        (("by: time", "by: tiem"), 9, "did you mean 'time'?"),
        (("type: full", "type: ful"), 6, "did you mean 'full'?"),
        (("to: here", "to: there"), 9, "no step above defines mark 'there'"),
        (("to: here", "to: there"), 9, "did you mean 'here'?"),
        (("rows: here", "rows: heer"), 10, "did you mean 'here'?"),
        (("transactions: 10", "transactions: 10, marks: 0"), 7, "less than the minimum"),
        (("transactions: 10", "transactions: 10, marks: 10"), 7, "10 marks in 10 transactions"),
        (("transactions: 10", "transactions: 10, prefix: x"), 7, "'marks' is a dependency of 'prefix'"),
        (("transactions: 10", "transactions: 10, marks: 2, prefix: A"), 7, "is not a name"),
        (
            ("  - mark: here", "  - write: {transactions: 9, marks: 2, prefix: here}"),
            9,
            "no step above defines mark 'here'",
        ),
        (("  - write: {transactions: 10}", "  - mark: here"), 8, "mark 'here' is defined twice"),
        (("name: drill", "name: other"), 1, "differs from the file's"),
        (("name: drill", "name: drill\nname: drill"), 2, "key 'name' is given twice"),
        (("tags: [restore]", "tags: restore"), 3, "'restore' is not a list"),
        (("tags: [restore]", "tags: [Restore!]"), 3, "is not a name"),
        (("  - mark: here", "\t- mark: here"), 8, "this line holds a tab"),
        (("  - mark: here", "  - mark: [here"), 9, "expected ',' or ']'"),
        (("  - mark: here\n", "  - mark: here\n    backup: full\n"), 8, "a step has one verb"),
        (("{to: here, by: time}", "{to: here, lsn: 0/1}"), 9, "a restore has one target"),
        (("{to: here, by: time}", "newest"), 9, "did you mean 'latest'?"),
        (("{to: here, by: time}", "{time: 2026-01-15 21:30:00+00}"), 9, "put it in quotes"),
        (("users: 100", "users: 1"), 4, "less than the minimum"),
        (("mark: here", "crash: {tims: 5}"), 8, "did you mean 'times'?"),
        (("mark: here", "crash: {}"), 8, "'times' is missing"),
        (("mark: here", "crash: 5"), 8, "5 is not a mapping"),
        (("mark: here", "crash: {times: 0}"), 8, "less than the minimum"),
        (("mark: here", "crash: {times: 2, clients: 65}"), 8, "greater than the maximum"),
        (("mark: here", "crash: {times: 2, archive_timeout: 2s}"), 8, "'2s' is not a whole number"),
        (("mark: here", "crash: {times: 2, archive_timeout: 0}"), 8, "less than the minimum"),
    ],
)
def test_a_mistake_is_named_with_file_line_and_remedy(
    tmp_path: Path, change: tuple[str, str], line: int, words: str
) -> None:
    assert change[0] in GOOD
    path = write(tmp_path, GOOD.replace(*change))
    with pytest.raises(ScenarioError) as caught:
        load_scenario(path)
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the file is empty"),
        ("- a list", "is not a mapping"),
        ("name: drill\ntitle: t\n", "'steps' is missing"),
        ("name: drill\ntitle: t\nsteps: []\n", "it is empty"),
        ("name: drill\ntitle: t\nsteps: [{}]\n", "it is empty"),
        ("name: drill\ntitle: t\nsteps: [backup]\n", "'backup' is not a mapping"),
        ("name: drill\ntitle: t\nsteps: &a [*a]\n", "aliases are not supported"),
        ("name: drill\ntitle: 2026-99-99\nsteps: []\n", "quote the value"),
        ("name: \x0c\n", "is not allowed in YAML"),
    ],
)
def test_a_file_that_is_no_scenario_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ScenarioError, match=words):
        load_scenario(write(tmp_path, text))


def test_bytes_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "drill.yaml"
    path.write_bytes(b"name: \xff\n")
    with pytest.raises(ScenarioError, match="not UTF-8"):
        load_scenario(path)


@given(st.text(alphabet=string.printable, max_size=300))
def test_no_text_whatever_ends_in_anything_but_a_scenario_or_its_error(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = write(tmp_path_factory.mktemp("any"), text)
    with pytest.raises(ScenarioError, match=r"drill\.yaml"):
        load_scenario(path)


@given(
    st.lists(
        st.sampled_from(["backup", "write", "mark", "restore", "expect", "check", "lose", "mistake", "crash"]),
        max_size=4,
    ),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3)
    ),
)
def test_no_argument_of_a_verb_crashes_the_loader(
    tmp_path_factory: pytest.TempPathFactory, verbs: list[str], argument: object
) -> None:
    steps = "\n".join(f"  - {verb}: {argument!r}" for verb in verbs)
    path = write(tmp_path_factory.mktemp("any"), f"name: drill\ntitle: t\nsteps:\n{steps}\n")
    try:
        load_scenario(path)
    except IopError as error:
        assert "drill.yaml" in str(error)  # noqa: PT017 - either outcome is right


def test_names_tags_paths_and_all_select_each_file_once(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    folders = [resources.scenarios(), tmp_path]
    assert select(["drill", str(path), "drill.yaml"], folders, tmp_path) == [path]
    assert resources.scenarios() / "pitr.yaml" in select(["tag:pitr"], folders, tmp_path)
    assert set(select(["all"], folders, tmp_path)) == set(scenario_files(folders).values())


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("pitrr", "did you mean 'pitr'?"),
        ("tag:pirt", "did you mean 'pitr'?"),
        ("no/such.yaml", "there is no such file"),
    ],
)
def test_a_selection_that_means_nothing_is_refused_with_the_nearest(tmp_path: Path, word: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        select([word], [resources.scenarios()], tmp_path)
    assert words in str(caught.value)
