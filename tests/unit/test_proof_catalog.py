from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pytest_iopbackup.proof.catalog import ABSENT, MISSING, WIDTH, CatalogObject, excerpts, object_findings
from pytest_iopbackup.proven import Finding


def thing(kind: str, name: str, definition: str = "same") -> CatalogObject:
    return CatalogObject(kind=kind, name=name, definition=definition)


TABLE = [thing("table", "s.t"), thing("column", "s.t.id"), thing("constraint", "s.t.k"), thing("index", "s.k")]


def names(findings: tuple[Finding, ...]) -> list[str]:
    return [f"{finding.kind} {finding.name}" for finding in findings]


def test_same_objects() -> None:
    assert object_findings(TABLE, reversed(TABLE)) == ()


def test_a_missing_table_is_told_once() -> None:
    found = object_findings(TABLE, [])
    assert names(found) == ["index s.k", "table s.t"]
    assert {finding.actual for finding in found} == {MISSING}


def test_an_unexpected_table_is_told_once() -> None:
    found = object_findings([thing("table", "s.t2")], [thing("table", "s.t2"), *TABLE])
    assert names(found) == ["index s.k", "table s.t"]
    assert {finding.expected for finding in found} == {ABSENT}


def test_parts_of_a_table_that_is_there_are_told() -> None:
    assert names(object_findings(TABLE, TABLE[:1])) == ["column s.t.id", "constraint s.t.k", "index s.k"]


def test_a_name_that_only_begins_alike_is_no_parent() -> None:
    expected = [thing("table", "s.t"), thing("table", "s.t2"), thing("column", "s.t2.id")]
    assert names(object_findings(expected, [expected[1]])) == ["column s.t2.id", "table s.t"]


def test_same_name_of_another_kind() -> None:
    assert names(object_findings([thing("view", "s.t")], [thing("table", "s.t")])) == ["table s.t", "view s.t"]


def test_another_definition() -> None:
    found = object_findings([thing("view", "v", "select 1")], [thing("view", "v", "select 2")])
    assert found == (Finding(kind="view", name="v", expected="select 1", actual="select 2"),)


def test_a_definition_that_says_missing_is_not_missing() -> None:
    assert object_findings([thing("comment", "c", MISSING)], []) != ()


@given(before=st.text(max_size=400), tail=st.tuples(st.text(max_size=300), st.text(max_size=300)))
def test_excerpts_show_the_difference(before: str, tail: tuple[str, str]) -> None:
    expected, actual = before + tail[0], before + tail[1]
    shown = excerpts(expected, actual)
    assert all(len(text) <= WIDTH + 2 and "\n" not in text for text in shown)
    if expected.replace("\n", "\\n") != actual.replace("\n", "\\n"):
        assert shown[0] != shown[1]
