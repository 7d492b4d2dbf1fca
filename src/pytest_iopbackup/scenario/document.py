"""Reads YAML so that every value knows its line; refuses what PyYAML silently accepts, such as a key given twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pytest_iopbackup.errors import ScenarioError


@dataclass(frozen=True, slots=True)
class Document:
    """A YAML file's content and its nodes."""

    path: Path
    content: Any
    root: yaml.Node

    def line(self, where: Sequence[str | int]) -> int:
        """Return the line (from 1) of the value at a path of keys and indexes, or of the nearest one above it."""
        node = self.root
        line = node.start_mark.line
        for part in where:
            child = _child(node, part)
            if child is None:
                break
            line = child[0]
            node = child[1]
        return int(line) + 1

    def error(self, where: Sequence[str | int], message: str, hint: str | None = None) -> ScenarioError:
        """Return an error that starts with ``file:line``."""
        return ScenarioError(f"{self.path}:{self.line(where)}: {message}", hint=hint)


def read_document(path: Path) -> Document:
    """Read a YAML file. Raises ScenarioError with file and line."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ScenarioError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ScenarioError(f"{path}: not UTF-8: {error.reason} at byte {error.start}") from error
    try:
        return _parse(path, text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line if mark else 0
        lines = [*text.splitlines(), ""]
        tab = "\t" in lines[min(line, len(lines) - 1)]
        hint = "YAML is indented with spaces; this line holds a tab" if tab else None
        raise ScenarioError(f"{path}:{line + 1}: {error.problem or error.context}", hint=hint) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ScenarioError(f"{path}:{line}: character {chr(error.character)!r} is not allowed in YAML") from error


def _parse(path: Path, text: str) -> Document:
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            raise ScenarioError(f"{path}:1: the file is empty", hint="a scenario needs name, title and steps")
        _refuse(path, root, set())
        return Document(path, loader.construct_document(root), root)
    except ValueError as error:  # a date such as 2026-99-99
        raise ScenarioError(f"{path}: {error}", hint="quote the value if it is meant as text") from error
    finally:
        loader.dispose()


def _child(node: yaml.Node, part: str | int) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == part:
                return key.start_mark.line, value
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        child = node.value[part]
        return child.start_mark.line, child
    return None


def _refuse(path: Path, node: yaml.Node, seen: set[int]) -> None:
    """Raise ScenarioError for a key given twice, and for an alias: a scenario reads from top to bottom."""
    where = f"{path}:{node.start_mark.line + 1}"
    if id(node) in seen:
        raise ScenarioError(f"{where}: YAML aliases are not supported", hint="write the value out where it is needed")
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        keys: set[str] = set()
        for key, value in node.value:
            if isinstance(key.value, str) and key.value in keys:
                raise ScenarioError(f"{path}:{key.start_mark.line + 1}: key {key.value!r} is given twice")
            keys.add(str(key.value))
            _refuse(path, value, seen)
    elif isinstance(node, yaml.SequenceNode):
        for child in node.value:
            _refuse(path, child, seen)
