"""Reads and validates scenario files: one schema, then the references between steps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import jsonschema

from pytest_iopbackup.names import suggest
from pytest_iopbackup.scenario.document import Document, read_document
from pytest_iopbackup.scenario.model import (
    Action,
    Backup,
    Check,
    Configure,
    Control,
    Crash,
    Dataset,
    Expect,
    Fault,
    Lose,
    Mark,
    Mistake,
    Refuse,
    Restore,
    RestoreKept,
    Scenario,
    Schedule,
    Step,
    Sweep,
    Targets,
    Write,
    mark_names,
)

Where: TypeAlias = list[str | int]
"""The path to a value: keys and indexes."""

_TYPES = {"string": "text", "integer": "a whole number", "object": "a mapping", "array": "a list"}


def load_scenario(path: Path) -> Scenario:
    """Read a scenario file. Raises ScenarioError: file, line, what is wrong, the nearest valid name."""
    document = read_document(path)
    _validate(document)
    content = document.content
    if content["name"] != path.stem:
        raise document.error(["name"], f"name {content['name']!r} differs from the file's, {path.stem!r}")
    steps = tuple(_step(document, index, entry) for index, entry in enumerate(content["steps"]))
    _check_references(document, steps)
    return Scenario(
        name=content["name"],
        title=content["title"],
        path=path,
        steps=steps,
        tags=tuple(content.get("tags", ())),
        dataset=Dataset(**content.get("dataset", {})),
        stack=content.get("stack"),
        variables=_variables(content.get("variables", {})),
    )


@lru_cache(maxsize=1)
def schema() -> Mapping[str, Any]:
    """Return the JSON schema of a scenario file."""
    content: Mapping[str, Any] = json.loads(Path(__file__).with_name("schema.json").read_text(encoding="utf-8"))
    return content


def _validate(document: Document) -> None:
    validator = jsonschema.Draft202012Validator(schema())
    errors = sorted(validator.iter_errors(document.content), key=lambda error: document.line(list(error.absolute_path)))
    if not errors:
        return
    error = errors[0]
    where = list(error.absolute_path)
    message, hint = _explain(error)
    if error.validator == "additionalProperties":
        where.append(_unknown_keys(error)[0])
    raise document.error(where, f"{_place(list(error.absolute_path))}: {message}", hint)


def _place(where: Where) -> str:
    """Name a place as people count: ``step 1, backup``."""
    if where[:1] == ["steps"] and len(where) > 1:
        where = [f"step {int(where[1]) + 1}", *where[2:]]
    return ", ".join(str(part) for part in where) or "the file"


def _explain(error: jsonschema.ValidationError) -> tuple[str, str | None]:
    """Say in plain words what a schema error means."""
    wanted: Any = error.validator_value
    given: Any = error.instance
    if error.validator == "additionalProperties":
        wrong = _unknown_keys(error)[0]
        return f"unknown key {wrong!r}", suggest(wrong, _properties(error))
    if error.validator == "required":
        missing = [name for name in wanted if name not in given]
        return f"{', '.join(map(repr, missing))} is missing", None
    if error.validator == "type":
        kinds = wanted if isinstance(wanted, list) else [wanted]
        quote = "put it in quotes: YAML reads it as a date" if isinstance(given, date) else None
        shown = str(given) if isinstance(given, date) else repr(given)
        return f"{shown} is not {' or '.join(_TYPES[kind] for kind in kinds)}", quote
    if error.validator == "enum":
        return f"{error.instance!r} is not allowed here", suggest(str(error.instance), map(str, wanted))
    if error.validator == "pattern":
        return f"{error.instance!r} is not a name", "lower-case letters, digits and hyphens, a letter first"
    if error.validator in {"minItems", "minProperties"}:
        return "it is empty", None
    if error.validator == "maxProperties":
        return "a step has one verb; write the others as steps of their own", None
    return error.message, None


def _unknown_keys(error: jsonschema.ValidationError) -> list[str]:
    given: Any = error.instance
    return [str(name) for name in given if name not in _properties(error)]


def _properties(error: jsonschema.ValidationError) -> Mapping[str, Any]:
    schema_there: Any = error.schema
    properties: Mapping[str, Any] = schema_there["properties"]
    return properties


def _step(document: Document, index: int, entry: Mapping[str, Any]) -> Step:
    ((verb, argument),) = entry.items()
    where: Where = ["steps", index, verb]
    return Step(verb, _action(document, where, verb, argument), document.line(where))


def _action(document: Document, where: Where, verb: str, argument: Any) -> Action:
    if verb == "backup":
        return Backup(argument) if isinstance(argument, str) else Backup(argument["type"], argument.get("as"))
    if verb == "restore":
        return _restore(document, where, argument)
    if verb == "check":
        return Check()
    if verb == "configure":
        return Configure(_variables(argument))
    if verb == "control":
        wanted = argument["restore"]
        return Control() if isinstance(wanted, str) else Control(wanted["to"], wanted.get("by", "time"))
    simple = {
        "write": Write, "mistake": Mistake, "expect": Expect, "schedule": Schedule, "restore-kept": RestoreKept,
        "sweep": Sweep, "crash": Crash,
    }  # fmt: skip
    if verb in simple:
        action: Action = simple[verb](**argument)
        return action
    named: dict[str, type[Mark] | type[Lose] | type[Refuse] | type[Fault] | type[Targets]]
    named = {"mark": Mark, "lose": Lose, "refuse": Refuse, "fault": Fault, "targets": Targets}
    return named[verb](argument)


def _variables(argument: Mapping[str, Any]) -> Mapping[str, str]:
    return {name: str(value) for name, value in argument.items()}


def _restore(document: Document, where: Where, argument: Any) -> Restore:
    if isinstance(argument, str):
        return Restore()
    if "to" in argument and len(argument) <= 2 and set(argument) <= {"to", "by"}:
        return Restore(mark=argument["to"], by=argument.get("by", "name"))
    if len(argument) != 1:
        raise document.error(where, "a restore has one target", "to (with by), time, lsn, xid, name, or backup")
    ((kind, value),) = argument.items()
    if kind == "backup":
        return Restore(by="immediate", backup=value)
    return Restore(by=kind, value=str(value))


def _check_references(document: Document, steps: tuple[Step, ...]) -> None:
    """Every mark and backup that a step names stands above it, once."""
    marks: set[str] = set()
    backups: set[str] = set()
    for index, step in enumerate(steps):
        where: Where = ["steps", index, step.verb]
        action = step.action
        for name in _marks(document, where, action):
            _define(document, where, "mark", name, marks)
        if isinstance(action, Backup) and action.name is not None:
            _define(document, where, "backup", action.name, backups)
        elif isinstance(action, (Targets, Sweep)):
            _demand_history(document, where, steps[:index], 2 if isinstance(action, Targets) else 1)
        elif isinstance(action, (Expect, RestoreKept)):
            _refer(document, [*where, "rows"], "mark", action.rows, marks)
        elif isinstance(action, Restore) and action.mark is not None:
            _refer(document, [*where, "to"], "mark", action.mark, marks)
        elif isinstance(action, Control) and action.mark is not None:
            _refer(document, [*where, "restore", "to"], "mark", action.mark, marks)
        elif isinstance(action, Restore) and action.backup is not None:
            _refer(document, [*where, "backup"], "backup", action.backup, backups)


def _marks(document: Document, where: Where, action: Action) -> tuple[str, ...]:
    """Return the marks that an action takes."""
    if isinstance(action, Mark):
        return (action.name,)
    if not isinstance(action, Write):
        return ()
    if action.marks >= action.transactions:
        message = f"{action.marks} marks in {action.transactions} transactions"
        raise document.error([*where, "marks"], message, "between any two there must be some to write")
    return mark_names(action.prefix, action.marks)


def _demand_history(document: Document, where: Where, before: tuple[Step, ...], marks: int) -> None:
    """Where nothing was written and marked above, no recovery point has anything to be compared with."""
    taken = sum(len(_marks(document, where, step.action)) for step in before)
    if not any(isinstance(step.action, Write) for step in before):
        raise document.error(where, "no step above writes, so no row is expected anywhere", "add 'write' above")
    if taken < marks:
        stand = "1 mark stands" if taken == 1 else f"{taken} marks stand"
        raise document.error(where, f"{stand} above, and {marks} are needed", "add 'mark' above")


def _define(document: Document, where: Where, kind: str, name: str, known: set[str]) -> None:
    if name in known:
        raise document.error(where, f"{kind} {name!r} is defined twice", "give each its own name")
    known.add(name)


def _refer(document: Document, where: Where, kind: str, name: str, known: set[str]) -> None:
    if name not in known:
        raise document.error(where, f"no step above defines {kind} {name!r}", suggest(name, known))
