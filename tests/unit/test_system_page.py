"""Each sentence of docs/system.md stands in docs/requirements.md, with a test that fails when it is made false."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "system.md").read_text(encoding="utf-8")
TABLE = (ROOT / "docs" / "requirements.md").read_text(encoding="utf-8")

_ROW = re.compile(r"\| (S\d+) \| (.+?) \| (.+?) \| (.+?) \|")
_TEST = re.compile(r"`(tests/[\w/]+\.py)::((?:Test\w+::)?test_\w+)(?:\[([^\]`]+)\])?`")
_REFERENCE = re.compile(r"\bS(\d+)(?:-S(\d+))?\b")


@dataclass(frozen=True)
class Row:
    """A sentence, the files that make it true, and the tests (or other sentences' numbers) that it rests on."""

    number: str
    sentence: str
    files: str
    proof: str

    @property
    def references(self) -> set[int]:
        """Numbers of other sentences; ``S3-S5`` is three."""
        text = re.sub("`[^`]*`", "", self.proof)
        pairs = [(int(first), int(last or first)) for first, last in _REFERENCE.findall(text)]
        return {number for first, last in pairs for number in range(first, last + 1)}


def sentences(page: str) -> Iterator[str]:
    """Yield headings, sentences, list items and blocks of code, in order; of markup only code's backticks stay."""
    for block in re.split(r"\n\n|\n(?=- )", page):
        text = " ".join(line.removeprefix(">").rstrip("\\").strip() for line in block.splitlines()).strip()
        if text.startswith("```"):
            yield "`" + " ".join(text.split(" ")[1:-1]).strip() + "`"
        elif text.startswith(("#", "- ")):
            yield re.sub(r"^- |\*\*", "", text)
        else:
            yield from re.split(r"(?<=\.) (?=[A-Z])", re.sub(r"^\*\*Info\*\* *", "", text))


def said(page: str) -> list[str]:
    """Return what the page says, with its headings."""
    return [" ".join(text.split()) for text in sentences(page) if text]


ROWS = [Row(*match.groups()) for match in map(_ROW.fullmatch, TABLE.splitlines()) if match]
NUMBERS = [row.number for row in ROWS]


@cache
def found_in(file: str) -> dict[str, set[str]]:
    """Return the tests of a file, ``Class::test`` where they are in one, each with the ids that its parameters have."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    found = {}
    for node in tree.body:
        inner = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}::" if isinstance(node, ast.ClassDef) else ""
        for test in inner:
            if isinstance(test, ast.FunctionDef) and test.name.startswith("test_"):
                given = [
                    keyword.value
                    for decorator in test.decorator_list
                    for call in ast.walk(decorator)
                    if isinstance(call, ast.Call)
                    for keyword in call.keywords
                    if keyword.arg in {"id", "ids"}
                ]
                parts = [part for value in given for part in ast.walk(value)]
                found[prefix + test.name] = {str(part.value) for part in parts if isinstance(part, ast.Constant)}
    return found


def test_the_page_is_read_as_it_is_meant() -> None:
    page = "# T\n\nOne a\nb. Two:\n\n- **x**\\\n  y\n- z. Z\n\n> **Info**\n>\n> N.\n\n```sh\n./c \\\n  d\n```\n"
    assert said(page) == ["# T", "One a b.", "Two:", "x y", "z. Z", "N.", "`./c d`"]


def test_every_sentence_stands_in_the_table_once_and_in_order() -> None:
    listed = [text.removeprefix("## ") for text in TABLE.splitlines() if text.startswith("## ")]
    assert listed == [text.lstrip("# ") for text in said(PAGE) if text.startswith("#")]
    assert [row.sentence for row in ROWS] == [text for text in said(PAGE) if not text.startswith("#")]
    assert [f"S{number}" for number in range(1, len(ROWS) + 1)] == NUMBERS


def test_each_sentence_stands_in_its_section() -> None:
    order = re.findall(r"^## (.*)$|^\| S\d+ \| (.+?) \|", TABLE, re.MULTILINE)
    assert [heading or sentence for heading, sentence in order] == [text.lstrip("# ") for text in said(PAGE)]


def test_no_line_of_the_table_is_malformed() -> None:
    lines = [line for line in TABLE.splitlines() if re.match(r"\| *S\d", line)]
    assert [line for line in lines if not _ROW.fullmatch(line)] == []
    assert len(ROWS) > 80


@pytest.mark.parametrize("row", ROWS, ids=NUMBERS)
def test_every_test_that_is_named_exists(row: Row) -> None:
    named = _TEST.findall(row.proof)
    assert len(named) == row.proof.count("`tests/"), "a test is written as `tests/FILE.py::NAME`"
    for file, name, parameter in named:
        assert (ROOT / file).is_file(), file
        assert name in found_in(file), f"{file} has no {name}"
        assert not parameter or parameter in found_in(file)[name], f"{name} has no {parameter}"
    for scenarios in re.findall(r"scenarios? ((?:`\w+`(?:, | and )?)+)", row.proof):
        for name in re.findall(r"\w+", scenarios.replace(" and ", " ")):
            assert (ROOT / "scenarios" / f"{name}.yaml").is_file(), f"there is no scenario {name}"


@pytest.mark.parametrize("row", ROWS, ids=NUMBERS)
def test_every_sentence_rests_on_tests_at_last(row: Row) -> None:
    """By itself, or by sentences that it sums up, which must not lean on it in turn."""

    def rests(at: Row, above: frozenset[str]) -> bool:
        below = [ROWS[number - 1] for number in at.references if 0 < number <= len(ROWS)]
        assert len(below) == len(at.references), f"{at.number} refers to a sentence that is not there"
        assert at.number not in above, f"{at.number} leans on itself"
        return bool(_TEST.search(at.proof) or below) and all(rests(one, above | {at.number}) for one in below)

    assert rests(row, frozenset())


@pytest.mark.parametrize("row", ROWS, ids=NUMBERS)
def test_every_file_that_is_named_exists(row: Row) -> None:
    for name in re.findall(r"`([^`]+)`", row.files):
        assert (ROOT / name).exists(), name
