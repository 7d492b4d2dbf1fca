from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_iopbackup.proof.rowlist import RowList, subtract

WIDTHS = (8, 4, 2)
HASHES = st.integers(0, 5)


def listed(hashes: list[int]) -> RowList:
    return RowList(WIDTHS, b"".join(h.to_bytes(8, "big") + (7 * h).to_bytes(4, "big") + b"\0\1" for h in hashes))


@given(st.lists(HASHES), st.lists(HASHES))
def test_the_difference_of_two_multisets(first: list[int], second: list[int]) -> None:
    found = subtract(listed(first), listed(second))
    assert found.left == 0
    assert {entry.row: entry.count for entry in found.entries} == {
        number: first.count(number) - second.count(number)
        for number in {*first, *second}
        if first.count(number) != second.count(number)
    }
    assert all(entry.words == (7 * entry.row, 1) for entry in found.entries)


def test_equal_rows_may_be_told_in_other_words() -> None:
    """A key that the other side has not is all zeros there."""
    assert subtract(listed([1, 2]), RowList(WIDTHS, (1).to_bytes(8, "big") + bytes(6))).entries[0].row == 2


def test_dump_and_load() -> None:
    kept = listed([3, 1, 3])
    assert RowList.load(WIDTHS, kept.dump()) == kept
    assert kept.rows == 3
    with pytest.raises(ValueError, match="no rows of 14 bytes"):
        RowList.load(WIDTHS, kept.dump()[:-1])
