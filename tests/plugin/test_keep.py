"""``--iop-keep``: what stays, and that it is said where."""

from __future__ import annotations

import re

import pytest

from project import Project
from pytest_iopbackup.errors import IopError
from pytest_iopbackup.stack.workspace import sweep
from scripted import DIFFERENT

OWN_TEST = "def test_it(iop_stack): assert iop_stack.check()"


@pytest.mark.parametrize("own", [False, True], ids=["scenario", "fixture"])
@pytest.mark.parametrize("outcome", ["passed", "failed", "not up"])
@pytest.mark.parametrize(
    ("keep", "keeps"),
    [("never", set()), ("failed", {"failed", "not up"}), ("always", {"passed", "failed", "not up"})],
    ids=["never", "when failed", "always"],
)
def test_what_is_kept_is_said_and_nothing_else_stays(
    project: Project, keep: str, keeps: set[str], outcome: str, *, own: bool
) -> None:
    project.pytester.makepyfile(OWN_TEST)
    if outcome == "failed":
        project.script.update({"expect": DIFFERENT, "check": IopError("not green")})
    elif outcome == "not up":
        project.trouble = IopError("not green")
    result = project.run(f"--iop-keep={keep}", *([] if own else ["--iop-scenario=mine"]))
    assert (result.ret == pytest.ExitCode.OK) is (outcome == "passed")
    said = set(re.findall(r"^kept: (\S+)$", result.stdout.str(), re.MULTILINE))
    there = {str(path) for path in project.base.glob("iop-*/*")}
    assert said == there
    assert len(there) == (1 if outcome in keeps else 0)
    if not own:
        assert project.records()[0].scenarios[0].kept == (there.pop() if there else None)


def test_each_of_several_is_kept_by_its_own_outcome(project: Project) -> None:
    project.pytester.makepyfile(
        "def test_good(iop_stack): pass\n\ndef test_bad(iop_stack): assert False\n\ndef test_fine(iop_stack): pass\n"
    )
    result = project.run("--iop-keep=failed")
    result.assert_outcomes(passed=2, failed=1)
    assert [path.name for path in project.base.glob("iop-*/*")] == ["s-main-2"]
    assert sweep(project.base) == ()
    assert [path.name for path in project.base.glob("iop-*/*")] == ["s-main-2"]


@pytest.mark.parametrize("keep", ["never", "failed", "always"])
def test_an_interrupted_run_has_not_failed_and_what_is_kept_of_it_is_said(project: Project, keep: str) -> None:
    project.script["restore"] = KeyboardInterrupt()
    result = project.run("--iop-scenario=mine", f"--iop-keep={keep}")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    there = [str(path) for path in project.base.glob("iop-*/*")]
    assert len(there) == (1 if keep == "always" else 0)
    assert re.findall(r"^kept: (\S+)$", result.stdout.str(), re.MULTILINE) == there
    assert project.reports == []
