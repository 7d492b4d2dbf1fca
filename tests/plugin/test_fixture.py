"""``iop_stack`` in somebody's own tests; with drills that need no server."""

from __future__ import annotations

import pytest

from project import Project, all_output
from pytest_iopbackup.errors import MachineError


def test_a_test_gets_a_drill_of_its_own(project: Project) -> None:
    project.pytester.makepyfile(
        """
        def test_one(iop_stack):
            assert iop_stack.backup("diff").label

        def test_two(iop_stack):
            assert iop_stack.mark("here").rows == 32
        """
    )
    project.run().assert_outcomes(passed=2)
    assert [drill.verbs for drill in project.drills] == [["backup"], ["mark"]]
    assert project.templates == ["42-2000", "42-2000"]
    assert project.left == []
    assert project.reports == []


def test_a_marker_chooses_the_data(project: Project) -> None:
    project.pytester.makepyfile(
        """
        import pytest

        pytestmark = pytest.mark.iop_dataset(users=70)

        def test_one(iop_stack): pass

        @pytest.mark.iop_dataset(users=50, seed=7)
        def test_two(iop_stack): pass
        """
    )
    project.run("--strict-markers").assert_outcomes(passed=2)
    assert project.templates == ["42-70", "7-50"]


@pytest.mark.parametrize("arguments", ["user=50", "50", "50, 7", "users=50, size=1"])
def test_a_marker_that_makes_no_sense_is_said_so(project: Project, arguments: str) -> None:
    project.pytester.makepyfile(
        f"import pytest\n\n@pytest.mark.iop_dataset({arguments})\ndef test_it(iop_stack): pass\n"
    )
    result = project.run()
    result.assert_outcomes(errors=1)
    output = all_output(result)
    assert "iop_dataset takes users and seed, each by name; test_a_marker" in output
    assert "HINT: @pytest.mark.iop_dataset(users=500, seed=7)" in output
    assert "active.py" not in output
    assert project.drills == []


def test_a_stack_that_does_not_come_up_is_an_error_in_its_own_words(project: Project) -> None:
    project.trouble = MachineError("PostgreSQL's programs not found", hint="install them")
    project.pytester.makepyfile("def test_it(iop_stack): pass")
    result = project.run()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["PostgreSQL's programs not found", "HINT: install them"])
    assert "active.py" not in all_output(result)


@pytest.mark.parametrize(
    ("body", "failed"),
    [
        ("def test_it(iop_stack): pass", False),
        ("def test_it(iop_stack): assert not iop_stack", True),
        ("def test_it(iop_stack): raise KeyError", True),
        ("@pytest.fixture\ndef broken(iop_stack): raise KeyError\n\ndef test_it(broken): pass", True),
    ],
    ids=["passed", "failed", "raised", "set-up failed"],
)
def test_a_stack_knows_whether_its_test_failed(project: Project, body: str, *, failed: bool) -> None:
    project.pytester.makepyfile(f"import pytest\n\n{body}\n")
    project.run()
    assert [drill.failed for drill in project.drills] == [failed]
