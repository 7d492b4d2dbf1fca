from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_iopbackup.dataset import copytext

# What a text column of a database in UTF8 can hold: no NUL, no surrogates.
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))

_UNESCAPED = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def read_field(field: str) -> str | None:
    """Decode a field as PostgreSQL's manual describes it (COPY, "Text Format"), octal and hex escapes left out."""
    if field == r"\N":
        return None
    return re.sub(r"\\(.)", lambda match: _UNESCAPED.get(match[1], match[1]), field, flags=re.DOTALL)


def read_array(literal: str) -> list[str | None]:
    """Decode a one-dimensional array (the manual's "Array Input and Output Syntax")."""
    return [
        None if match[1] is None else re.sub(r"\\(.)", r"\1", match[1], flags=re.DOTALL)
        for match in re.finditer(r'"((?:[^"\\]|\\.)*)"|NULL', literal[1:-1], flags=re.DOTALL)
    ]


@given(TEXT)
def test_a_text_comes_back(value: str) -> None:
    assert read_field(copytext.text(value)) == value


@given(TEXT)
def test_a_field_cannot_end_its_field_or_line(value: str) -> None:
    assert not set(copytext.text(value)) & set("\t\n\r")


@pytest.mark.parametrize("value", ["", "\\N", "\\.", "NULL"])
def test_null_is_no_text(value: str) -> None:
    assert copytext.text(value) != copytext.text(None) == copytext.NULL


@given(st.binary())
def test_bytes_come_back(value: bytes) -> None:
    field = read_field(copytext.binary(value))
    assert field is not None
    assert field.startswith("\\x")
    assert bytes.fromhex(field[2:]) == value


@given(st.lists(st.none() | TEXT))
def test_an_array_comes_back(items: list[str | None]) -> None:
    literal = read_field(copytext.array(items))
    assert literal is not None
    assert read_array(literal) == items


@given(st.dictionaries(TEXT, st.none() | st.booleans() | st.integers() | TEXT))
def test_a_document_comes_back(value: dict[str, object]) -> None:
    field = read_field(copytext.document(value))
    assert field is not None
    assert json.loads(field) == value


@given(st.lists(st.tuples(TEXT, st.none() | TEXT)))
def test_lines_hold_the_rows(rows: list[tuple[str, str | None]]) -> None:
    data = copytext.lines([[copytext.text(row[0]) for row in rows], [copytext.text(row[1]) for row in rows]])
    lines = data.decode().split("\n")
    assert lines.pop() == ""
    assert [tuple(map(read_field, line.split("\t"))) for line in lines] == rows


def test_columns_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        copytext.lines([["1", "2"], ["a"]])
