"""A fault's class that cannot work is refused where it is registered, and not by a verdict once a stack is up."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from project import Project, all_output
from pytest_iopbackup.errors import UsageError
from pytest_iopbackup.faults.base import Expected, Fault
from pytest_iopbackup.faults.site import Site
from pytest_iopbackup.history import _LONGEST_NAME
from pytest_iopbackup.options import STACKS
from pytest_iopbackup.registry import KINDS, LONGEST_NAME, Registry
from pytest_iopbackup.signals import base
from pytest_iopbackup.stack.base import Places
from pytest_iopbackup.stack.mapping import Volumes
from scripts import load


class Good(Fault):
    name = "good"
    title = "Something is broken"
    expected = Expected(signal="restore", reason="broken")

    def inject(self, site: Site) -> None:
        pass

    def prove(self, site: Site) -> str:  # noqa: ARG002 - by keyword, too
        return "it is broken"

    def heal(self, site: Site) -> None:
        pass


class Bare(Fault):
    """It has no attribute of its own."""

    inject, prove, heal = Good.inject, Good.prove, Good.heal


class NoHeal(Fault):
    name, title, expected = Good.name, Good.title, Good.expected

    def inject(self, site: Site) -> None:
        pass


def but(**attributes: object) -> type[Fault]:
    return type("Mine", (Good,), attributes)


def expecting(signal: str = "archiver", reason: str = "words", within: object = 15) -> type[Fault]:
    return but(expected=Expected(signal=signal, reason=reason, within=within))  # type: ignore[arg-type]


BAD: list[tuple[object, str, str]] = [
    (Good(), "is not a class of faults", "derived from"),
    (Places, "stack.base.Places is not a class of faults", "derived from"),
    (NoHeal, "NoHeal has no heal() and no prove()", "def heal(self, site)"),
    (Bare, "Bare has no name", 'name = "'),
    (but(name=None), "Mine has no name", 'name = "'),
    (but(name=""), "'' is not a name", "lower-case letters"),
    (but(name="Not A Name"), "'Not A Name' is not a name", "lower-case letters"),
    (but(name="good\n"), r"'good\n' is not a name", "lower-case letters"),
    (but(name="a" * 54), "is not a name", "53 at most"),
    (but(title=None), "Mine has no title", "one sentence"),
    (but(title=""), "Mine has no title", "one sentence"),
    (type("Mine", (Bare,), {"name": "mine", "title": "It"}), "Mine has no expected", "Expected("),
    (but(expected="archiver"), "expected is 'archiver'", "Expected("),
    (expecting("wal-archivin"), "there is no signal 'wal-archivin'", "did you mean 'wal-archiving'?"),
    (expecting("pgbackrest_check"), "there is no signal 'pgbackrest_check'", "did you mean 'pgbackrest-check'?"),
    (expecting(""), "there is no signal ''", "valid: archiver, "),
    (expecting(reason="[068 archive"), "'[068 archive' is not a regular expression: unterminated", r"write \["),
    (expecting(reason=None), "None is not a regular expression", "as text"),  # type: ignore[arg-type]
    (expecting(within=0), "within is 0", "seconds"),
    (expecting(within="15"), "within is '15'", "seconds"),
    (but(tags="our-rules"), "tags is 'our-rules'", 'tags = ("'),
    (but(tags=(1,)), "tags is (1,)", 'tags = ("'),
    (but(stacks=frozenset({"locale"})), "there is no stack kind 'locale'", "did you mean 'local'?"),
    (but(stacks="local"), "stacks is 'local'", 'stacks = frozenset({"'),
    (but(stacks=frozenset()), "stacks is frozenset()", 'stacks = frozenset({"'),
    (but(sizes={"repositry": "96m"}), "there is no volume 'repositry'", "did you mean 'repository'?"),
    (but(sizes={"lock": "96m"}), "there is no volume 'lock'", "valid: data, repository, spool, state"),
    (but(sizes={"spool": "a lot"}), "'a lot' is not the size of a volume", "128m"),
    (but(sizes="96m"), "sizes is '96m'", 'sizes = {"'),
    (but(variables={"IOP_READY_LIMIT": 31}), "variables is {'IOP_READY_LIMIT': 31}", "as text"),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "wrong", "remedy"), BAD, ids=lambda part: part if isinstance(part, str) else "")
def test_what_cannot_work_is_refused_by_its_class_with_what_to_do(fault: type[Fault], wrong: str, remedy: str) -> None:
    registry = Registry()
    with pytest.raises(UsageError) as caught:
        registry.add_fault(fault)
    assert wrong in caught.value.message
    assert remedy in (caught.value.hint or "")
    assert getattr(fault, "__name__", "Good") in caught.value.message
    assert dict(registry.faults) == {}


def test_what_can_work_is_not() -> None:
    registry = Registry()
    registry.add_fault(Good)
    registry.add_fault(Good)
    registry.add_fault(but(name="a" * 53, tags=["one"], stacks=("compose",), sizes={"data": "10%", "spool": "1G"}))
    assert set(registry.faults) == {"good", "a" * 53}


@pytest.mark.parametrize("signal", base.SIGNALS)
def test_every_signal_can_be_expected(signal: str) -> None:
    Registry().add_fault(expecting(signal))


def test_the_harness_knows_the_checks_that_the_stack_has() -> None:
    assert [check.__name__.replace("_", "-") for check in load("checks").CHECKS] == list(base.CHECKS)
    own = [value for name, value in vars(base).items() if name.isupper() and isinstance(value, str)]
    assert (*base.CHECKS, *own) == base.SIGNALS


@pytest.mark.parametrize("signal", base.SIGNALS)
def test_the_page_on_faults_names_every_signal(signal: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "faults.md").read_text(encoding="utf-8")
    assert f"`{signal}`" in page[page.index("`expected` names the signal") :]


def test_kinds_volumes_and_names_are_those_of_the_rest() -> None:
    assert ("auto", *KINDS) == STACKS
    assert {field.name for field in fields(Volumes)} <= {field.name for field in fields(Places)}
    assert LONGEST_NAME + len("healed-") == _LONGEST_NAME


HOOK = """
from pytest_iopbackup.faults.base import Expected, Fault

class Mine(Fault):
    title = "Something is broken"
    expected = Expected(signal="archivr", reason="words")
    def inject(self, site): pass
    def prove(self, site): pass
    def heal(self, site): pass

{more}

def pytest_iopbackup_register(registry):
    registry.add_fault(Mine)
"""


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("", "fault class conftest.Mine has no name"),
        ("Mine.name = 'mine'", "HINT: did you mean 'archiver'?"),
        ("Mine.name = 'mine'; Mine.stacks = {'here'}; Mine.expected = Expected(signal='space', reason='x')", "'here'"),
    ],
)
@pytest.mark.parametrize("arguments", [["--iop-scenario=full"], ["--iop-scenario=full", "-n2"], ["--iop-list"]])
def test_pytest_ends_with_a_usage_error(project: Project, arguments: list[str], more: str, words: str) -> None:
    project.pytester.makeconftest(HOOK.format(more=more))
    result = project.run(*arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert result.stderr.str().count(words) == 1
    assert "HINT: " in result.stderr.str()
    assert "Traceback" not in all_output(result)
    assert "INTERNALERROR" not in all_output(result)


def test_a_test_that_asks_for_a_stack_is_told_the_same(project: Project) -> None:
    project.pytester.makeconftest(HOOK.format(more=""))
    project.pytester.makepyfile(test_it="def test_it(iop_stack): pass")
    result = project.run("test_it.py")
    result.assert_outcomes(errors=1)
    assert "fault class conftest.Mine has no name" in all_output(result)
    assert "HINT: say what scenarios call it" in all_output(result)
    assert "active.py" not in all_output(result)
    assert "During handling" not in all_output(result)
