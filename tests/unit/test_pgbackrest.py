"""What pgBackRest prints, read."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_iopbackup.cluster.pgbackrest import json_in, percent_listener
from pytest_iopbackup.errors import IopError
from pytest_iopbackup.stack.base import CommandResult

WARNING = "WARN: configuration file contains invalid option 'repo1-retention-ful'\n"


def printed(text: str) -> CommandResult:
    return CommandResult(("pgbackrest", "info"), 0, text, "", 0.1)


@given(st.dictionaries(st.text(), st.lists(st.integers())), st.lists(st.just(WARNING)))
def test_json_is_found_behind_warnings(content: dict[str, list[int]], warnings: list[str]) -> None:
    assert json_in(printed("".join(warnings) + json.dumps([content]))) == [content]
    assert json_in(printed("".join(warnings) + json.dumps(content))) == content


@pytest.mark.parametrize("text", ["", WARNING])
def test_no_json_is_an_error_that_shows_what_was_printed(text: str) -> None:
    with pytest.raises(IopError, match="pgbackrest info"):
        json_in(printed(text))


@pytest.mark.parametrize(
    ("line", "share"),
    [
        ("P01 DETAIL: backup file /d/base/5/2619 (8KB, 12.34%) checksum 0af1", 0.123),
        ("2026-11-22 10:00:00.1 P02 DETAIL: restore file /d/base/1/2610 (bundle 1/8, 8KB, 99.9%) checksum 0a", 0.999),
        ("P00   INFO: backup begin", None),
        ("P00 DETAIL: check archive for segment 0000", None),
    ],
)
def test_progress_is_read_from_detail_lines(line: str, share: float | None) -> None:
    seen: list[float] = []
    listener = percent_listener(lambda done, total: seen.append(done / total))
    assert listener is not None
    listener(line)
    assert seen == ([] if share is None else [share])
