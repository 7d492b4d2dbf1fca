"""Which scenarios there are, and which of them ``--iop-scenario`` means."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from pytest_iopbackup.errors import UsageError
from pytest_iopbackup.names import suggest
from pytest_iopbackup.scenario.loader import load_scenario
from pytest_iopbackup.scenario.model import Scenario


def scenario_files(folders: Iterable[Path]) -> dict[str, Path]:
    """Return every scenario file by name; a folder later in the list wins over an earlier one."""
    return {path.stem: path for folder in folders for path in sorted(folder.rglob("*.yaml"))}


def select(wanted: Sequence[str], folders: Iterable[Path], current: Path) -> list[Path]:
    """Return the files that names, tags (``tag:NAME``), paths or ``all`` mean, each once, in the order asked for.

    Paths are relative to ``current``. Raises UsageError for what means nothing.
    """
    files = scenario_files(folders)
    chosen: dict[Path, None] = {}
    for word in wanted:
        for path in _meaning(word, files, current):
            chosen[path] = None
    return list(chosen)


def is_group(word: str) -> bool:
    """Whether a word means whatever is there, rather than one scenario."""
    return word == "all" or word.startswith("tag:")


def _meaning(word: str, files: dict[str, Path], current: Path) -> list[Path]:
    if word == "all":
        return list(files.values())
    if word.startswith("tag:"):
        return _tagged(word.removeprefix("tag:"), [load_scenario(path) for path in files.values()])
    if word in files:
        return [files[word]]
    if "/" in word or word.endswith((".yaml", ".yml")):
        path = (current / word).resolve()
        if not path.is_file():
            raise UsageError(f"scenario file {word!r}: there is no such file below {current}")
        return [path]
    raise UsageError(f"unknown scenario {word!r}", hint=f"{suggest(word, [*files, 'all'])}; --iop-list describes them")


def _tagged(tag: str, scenarios: Sequence[Scenario]) -> list[Path]:
    found = [scenario.path for scenario in scenarios if tag in scenario.tags]
    if not found:
        tags = {tag for scenario in scenarios for tag in scenario.tags}
        raise UsageError(f"no scenario has the tag {tag!r}", hint=suggest(tag, tags))
    return found
