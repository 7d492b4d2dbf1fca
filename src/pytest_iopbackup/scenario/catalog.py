"""Which scenarios there are, and which of them ``--iop-scenario`` means."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pytest_iopbackup.errors import UsageError
from pytest_iopbackup.names import suggest
from pytest_iopbackup.scenario.loader import load_scenario
from pytest_iopbackup.scenario.model import Scenario


def scenario_files(folders: Iterable[Path]) -> dict[str, Path]:
    """Return every scenario file by name; a folder later in the list wins over an earlier one."""
    return {path.stem: path for folder in folders for path in sorted(folder.rglob("*.yaml"))}


def scenario_groups(folders: Sequence[Path]) -> dict[str, list[Path]]:
    """Return the scenario files of each folder below those given, by its name: ``faults``."""
    groups: dict[str, list[Path]] = {}
    for path in scenario_files(folders).values():
        if path.parent not in folders:
            groups.setdefault(path.parent.name, []).append(path)
    return groups


def select(wanted: Sequence[str], folders: Sequence[Path], current: Path) -> list[Path]:
    """Return the files that names, folders, tags (``tag:NAME``), paths or ``all`` mean, each once, in the order asked.

    Paths are relative to ``current``. Raises UsageError for what means nothing.
    """
    files, groups = scenario_files(folders), scenario_groups(folders)
    chosen: dict[Path, None] = {}
    for word in wanted:
        for path in _meaning(word, files, groups, current):
            chosen[path] = None
    return list(chosen)


def is_group(word: str, folders: Sequence[Path]) -> bool:
    """Whether a word means whatever is there, rather than one scenario."""
    return word == "all" or word.startswith("tag:") or word in scenario_groups(folders).keys() - scenario_files(folders)


def _meaning(word: str, files: Mapping[str, Path], groups: Mapping[str, list[Path]], current: Path) -> list[Path]:
    if word == "all":
        return list(files.values())
    if word.startswith("tag:"):
        return _tagged(word.removeprefix("tag:"), [load_scenario(path) for path in files.values()])
    if word in files:
        return [files[word]]
    if word in groups:
        return groups[word]
    if "/" in word or word.endswith((".yaml", ".yml")):
        path = (current / word).resolve()
        if not path.is_file():
            raise UsageError(f"scenario file {word!r}: there is no such file below {current}")
        return [path]
    grouped = {path.stem for group in groups.values() for path in group}
    near = suggest(word, [*(files.keys() - grouped), *groups, "all"], grouped)
    raise UsageError(f"unknown scenario {word!r}", hint=f"{near}; --iop-list describes them")


def _tagged(tag: str, scenarios: Sequence[Scenario]) -> list[Path]:
    found = [scenario.path for scenario in scenarios if tag in scenario.tags]
    if not found:
        tags = {tag for scenario in scenarios for tag in scenario.tags}
        raise UsageError(f"no scenario has the tag {tag!r}", hint=suggest(tag, tags))
    return found
