"""Where runs live."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from pytest_iopbackup.errors import MachineError
from pytest_iopbackup.stack import location
from pytest_iopbackup.stack.location import base_directories, base_directory


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Give a directory that counts as memory, with room enough; nothing is said about another."""
    monkeypatch.delenv("TMPDIR", raising=False)
    monkeypatch.setattr(location, "_MEMORY", tmp_path)
    monkeypatch.setattr(location, "_PLENTY", 1)
    monkeypatch.setattr(tempfile, "tempdir", "/short")
    return tmp_path


def test_memory_where_there_is_plenty(memory: Path) -> None:
    assert base_directory(None) == memory
    assert base_directories() == (Path("/short"), memory)


def test_not_where_there_is_too_little(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(location, "_PLENTY", 1 << 60)
    assert base_directory(None) == Path("/short")


def test_not_where_there_is_none(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(location, "_MEMORY", memory / "none")
    assert base_directory(None) == Path("/short")


def test_not_where_the_user_has_said_where(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/short")
    assert base_directory(None) == Path("/short")


def test_a_place_that_no_socket_fits_below(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(location, "_PLENTY", 1 << 60)
    monkeypatch.setattr(tempfile, "tempdir", "/" + "l" * 60)
    assert base_directory(None) == Path("/tmp")
    assert base_directory(Path("/" + "e" * 59)) == Path("/" + "e" * 59)
    with pytest.raises(MachineError, match="longer than 60 bytes") as caught:
        base_directory(Path("/" + "é" * 30))
    assert "--iop-work-dir" in (caught.value.hint or "")
