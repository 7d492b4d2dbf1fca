from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_iopbackup.errors import ProofError
from pytest_iopbackup.proof import difference as proof_difference
from pytest_iopbackup.proof.difference import WIDTH, difference, readable

Rows = list[tuple[str, int]]

# Few keys and few contents, so that duplicates, changes and swaps all happen.
ROWS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2)), max_size=12)


def lines(rows: Rows) -> list[bytes]:
    return [f"{key}\t{content:032x}\n".encode() for key, content in rows]


def oracle(expected: Rows, actual: Rows) -> tuple[Counter[bytes], Counter[bytes], Counter[bytes]]:
    """Take equal rows away one by one, then pair what is left by key."""
    here = list(actual)
    there = []
    for row in expected:
        if row in here:
            here.remove(row)
        else:
            there.append(row)
    changed: Counter[bytes] = Counter()
    keys = [key for key, _ in here]
    missing: Counter[bytes] = Counter()
    for key, _ in there:
        if key in keys:
            keys.remove(key)
            changed[key.encode()] += 1
        else:
            missing[key.encode()] += 1
    return missing, Counter(key.encode() for key in keys), changed


@given(expected=ROWS, actual=ROWS)
def test_two_multisets(expected: Rows, actual: Rows) -> None:
    found = difference(lines(expected), lines(actual))
    assert (Counter(found.missing), Counter(found.unexpected), Counter(found.changed)) == oracle(expected, actual)


@given(rows=ROWS, seed=st.randoms())
def test_order_does_not_matter(rows: Rows, seed: object) -> None:
    shuffled = list(rows)
    seed.shuffle(shuffled)  # type: ignore[attr-defined]  # a random.Random
    found = difference(lines(rows), lines(shuffled))
    assert found == difference([], [])


def test_names_come_in_the_order_of_the_rows() -> None:
    found = difference(lines([("c", 1), ("a", 1), ("b", 1)]), lines([("a", 2)]))
    assert found.missing == (b"c", b"b")
    assert found.changed == (b"a",)


def copied(*values: str | None) -> bytes:
    """Return a key as COPY gives it: JSON, each backslash doubled."""
    return json.dumps(values, ensure_ascii=False).replace("\\", "\\\\").encode()


@pytest.mark.parametrize(
    ("key", "columns", "text"),
    [
        (copied("7"), ("id",), "id=7"),
        (copied("7", "über"), ("user_id", "name"), "user_id=7, name=über"),
        (copied("a\tb"), ("id",), r'id="a\tb"'),
        (copied("line\nbreak\u2028"), ("id",), r'id="line\nbreak\u2028"'),
        (copied(r"a\b"), ("id",), r"id=a\b"),
        (copied(""), ("id",), 'id=""'),
        (copied(" x"), ("id",), 'id=" x"'),
        (copied("(1,a)"), (), "(1,a)"),
        (copied(None), (), "NULL"),
    ],
)
def test_readable(key: bytes, columns: tuple[str, ...], text: str) -> None:
    assert readable(key, columns) == text


def test_readable_is_cut() -> None:
    text = readable(copied("x" * 500), ("id",))
    assert len(text) == WIDTH
    assert text.endswith("x…")


def test_rows_that_have_not_met_are_held_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    there = [b"%d\thash" % number for number in range(50)]
    monkeypatch.setattr(proof_difference, "MOST_WAITING", 100)
    assert len(difference(there, reversed(there[1:])).missing) == 1
    monkeypatch.setattr(proof_difference, "MOST_WAITING", 40)
    with pytest.raises(ProofError, match="more than 40 rows differ"):
        difference(there, reversed(there))
