from __future__ import annotations

import pytest

from pytest_iopbackup.proof.columns import MOST, differing, group_text, groups
from pytest_iopbackup.proof.keyform import PIECE, KeyForm, key_form, values_of

TYPES = {"n": "pg_catalog.int4", "m": "pg_catalog.int8", "u": "pg_catalog.uuid", "t": "pg_catalog.text"}


def in_bytes(text: str, length: int) -> bytes:
    return text.encode()[:length].ljust(length, b"\0")


@pytest.mark.parametrize(
    ("columns", "bits"),
    [
        (("n",), (64,)),
        (("n", "m"), (64, 64)),
        (("u",), (128,)),
        (("u", "n", "m"), (128, 64, 64)),
        (("u", "u", "n"), (64, 8 * 36)),  # five words are more than four
        (("n", "t"), (64, 8 * 36)),
        ((), (8 * PIECE,) * 4),
    ],
)
def test_numbers_are_kept_as_they_are(columns: tuple[str, ...], bits: tuple[int, ...]) -> None:
    assert key_form(columns, TYPES, 44).bits == bits


def test_numbers_and_uuids_come_back() -> None:
    form = KeyForm(columns=("n", "u"), kinds=("int8", "uuid"))
    name = form.name(((1 << 64) - 7, 0x42))
    assert (name.text, name.whole) == ("n=-7, u=00000000-0000-0000-0000-000000000042", True)


@pytest.mark.parametrize(
    ("text", "shown", "whole"),
    [
        ('["7", "g 1"]', "n=7, t=g 1", True),
        ('["7", "a long group"]', "n=7, t=a long grou…", False),
        ('["7", "12345678\\u00fc"]', "n=7, t=12345678…", False),
    ],
)
def test_text_comes_back_as_far_as_it_fits(text: str, shown: str, whole: bool) -> None:
    form = KeyForm(columns=("n", "t"), length=18)
    name = form.name((4711, int.from_bytes(in_bytes(text, 18), "big")))
    assert (name.text, name.whole) == (shown, whole)


def test_keys_that_begin_alike_are_two() -> None:
    form, same = KeyForm(columns=("t",), length=16), int.from_bytes(in_bytes('["the same begin', 16), "big")
    assert form.name((1, same)).key != form.name((2, same)).key


def test_a_row_comes_back_as_far_as_it_fits() -> None:
    form = KeyForm(columns=(), length=2 * PIECE)
    for text, shown in (("(1,a)", "(1,a)"), ("(1,abcdefghijkl)", "(1,abcdefghijk…")):
        raw = in_bytes(text, 2 * PIECE)
        assert form.name([int.from_bytes(raw[at : at + PIECE], "big") for at in (0, PIECE)]).text == shown


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ('["a", "b"]', ["a", "b"]),
        (r'["a\"b", "c\\"]', ['a"b', "c\\"]),
        ('["a", "b\\', ["a", "b"]),
        (r'["a", "b\u00', ["a", "b"]),
        ("[", []),
    ],
)
def test_values_of_a_cut_array(text: str, values: list[str]) -> None:
    assert values_of(text) == values


@pytest.mark.parametrize("count", [0, 1, MOST, MOST + 1, 100, 1599])
def test_groups_are_all_columns_in_order(count: int) -> None:
    columns = [f"c{number}" for number in range(count)]
    parts = groups(columns)
    assert [name for part in parts for name in part] == columns
    assert len(parts) == min(count, MOST)
    assert not parts or max(map(len, parts)) - min(map(len, parts)) <= 1


def test_only_groups_whose_bits_differ_are_named() -> None:
    parts = groups([f"c{number}" for number in range(10)])
    assert differing(parts, (0xFF << 8, 0)) == (("c1",),)
    assert differing(parts, (1 << 63, 1)) == (("c7",), ("c8",))
    assert group_text(("a",)) == "a"
    assert group_text(("a", "b", "c")) == "one of a … c"
