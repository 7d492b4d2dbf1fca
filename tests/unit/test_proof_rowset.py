from __future__ import annotations

from pytest_iopbackup.proof.rowset import to_digest


def test_digest_has_both_sums() -> None:
    assert to_digest(1, 2) == f"{1:016x}{2:016x}"


def test_sums_wrap() -> None:
    assert to_digest(-1, 2**64 + 5) == "f" * 16 + f"{5:016x}"
