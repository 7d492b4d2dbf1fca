from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_iopbackup.errors import ProofError
from pytest_iopbackup.proof.capture import FORMAT, load

WHOLE = {
    "format": FORMAT,
    "method": {"algorithm": "a", "server": 15, "probe": "00"},
    "seal": "00ff",
    "tables": [{"table": "s.t", "key": ["id"], "rows": 2, "digest": "0f", "as_text": []}],
    "sketches": [
        {
            "layout": {
                "shape": {"sizes": [512, 512, 512], "widths": [4, 8, 8], "additive": False},
                "key": {"columns": ["id"], "kinds": ["int8"], "length": 0, "absent": False},
                "columns": [],
            },
            "sha256": "00",
        }
    ],
    "skipped": {},
    "objects": [{"kind": "view", "name": "v", "definition": "d"}],
    "sequences": [{"name": "s", "last_value": 1, "is_called": True, "log_cnt": 32, "increment": 1}],
    "behind": {},
}


def write(directory: Path, content: object) -> Path:
    (directory / "capture.json").write_text(json.dumps(content))
    return directory


def test_load_knows_where_it_is_now(tmp_path: Path) -> None:
    found = load(write(tmp_path, WHOLE))
    assert found.directory == tmp_path
    assert (found.rows, found.algorithm) == (2, "a on PostgreSQL 15")


@pytest.mark.parametrize(
    "content",
    [
        [],
        {},
        {**WHOLE, "format": FORMAT + 1},
        {**WHOLE, "extra": 1},
        {key: value for key, value in WHOLE.items() if key != "tables"},
        {**WHOLE, "tables": [{"table": "s.t"}]},
        {**WHOLE, "sequences": 7},
    ],
)
def test_load_refuses_what_it_does_not_know(tmp_path: Path, content: object) -> None:
    with pytest.raises(ProofError, match=str(tmp_path)):
        load(write(tmp_path, content))


def test_load_refuses_half_a_file(tmp_path: Path) -> None:
    (tmp_path / "capture.json").write_text(json.dumps(WHOLE)[:-20])
    with pytest.raises(ProofError, match="no usable capture"):
        load(tmp_path)


def test_rows_that_were_not_kept_cannot_be_named(tmp_path: Path) -> None:
    with pytest.raises(ProofError, match=r"sketch of s\.t cannot be read"):
        load(write(tmp_path, WHOLE)).sketch("s.t")


def test_a_damaged_sketch_names_nothing(tmp_path: Path) -> None:
    taken = load(write(tmp_path, WHOLE))
    (tmp_path / "sketch").mkdir()
    (tmp_path / "sketch" / "0001").write_bytes(b"")
    with pytest.raises(ProofError, match=r"sketch of s\.t was changed since"):
        taken.sketch("s.t")
