"""What third parties add, by way of the hook ``pytest_iopbackup_register``."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields
from pathlib import Path

from pytest_iopbackup import resources
from pytest_iopbackup.errors import UsageError
from pytest_iopbackup.faults.base import Expected, Fault
from pytest_iopbackup.names import suggest
from pytest_iopbackup.signals.base import SIGNALS
from pytest_iopbackup.stack.mapping import Volumes

KINDS = ("local", "compose")
"""Of stacks."""
LONGEST_NAME = 53
"""Of a fault: a trial's marks are called ``before-NAME``, ``healed-NAME``, and have 60 bytes at most."""
_NAME = re.compile(r"[a-z][a-z0-9-]*")
_SIZE = re.compile(r"[1-9][0-9]*[kmgt%]?", re.IGNORECASE)
"""As tmpfs takes it."""

Flaw = tuple[str, str]
"""What is wrong, and what to do."""


class Registry:
    """Collects extensions before a run."""

    def __init__(self) -> None:
        self._folders: list[Path] = []
        self._faults: dict[str, type[Fault]] = {}

    def add_scenarios(self, folder: Path) -> None:
        """Offer every ``*.yaml`` below a folder as a scenario; its names win over those added before.

        Raises UsageError where there is no such folder.
        """
        if not folder.is_dir():
            raise UsageError(f"scenario folder {folder} is not a directory")
        self._folders.append(folder)

    def add_fault(self, fault: type[Fault]) -> None:
        """Offer a fault, by its name, to the verb ``fault`` and to Python tests.

        Raises UsageError for a name taken, and for a class that no trial could be made of: with what is wrong first.
        """
        if not (isinstance(fault, type) and issubclass(fault, Fault)):
            called = f"{fault.__module__}.{fault.__qualname__}" if isinstance(fault, type) else repr(fault)
            raise UsageError(
                f"{called} is not a class of faults",
                hint="add_fault takes a class itself, derived from pytest_iopbackup.faults.base.Fault",
            )
        for wrong, remedy in _flaws(fault):
            raise UsageError(f"fault class {fault.__module__}.{fault.__qualname__} {wrong}", hint=remedy)
        if self._faults.setdefault(fault.name, fault) is not fault:
            raise UsageError(
                f"fault {fault.name!r} of {fault.__module__} is called as one of {self._faults[fault.name].__module__}"
            )

    @property
    def faults(self) -> Mapping[str, type[Fault]]:
        """Every fault by name."""
        return self._faults

    @property
    def scenario_folders(self) -> tuple[Path, ...]:
        """Folders in the order in which they were added."""
        return tuple(self._folders)


def register_builtins(registry: Registry) -> None:
    """Add what comes with the package."""
    from pytest_iopbackup.faults.catalog import FAULTS  # noqa: PLC0415 - only runs that try faults need them

    registry.add_scenarios(resources.scenarios())
    for fault in FAULTS:
        registry.add_fault(fault)


def _flaws(fault: type[Fault]) -> Iterator[Flaw]:
    """Find what is wrong with a fault's class; the words go on after its name."""
    yield from _flaws_of_name(fault)
    missing = sorted(fault.__abstractmethods__)
    if missing:
        yield (
            f"has {' and '.join(f'no {method}()' for method in missing)}",
            " ".join(f"write def {method}(self, site): …" for method in missing),
        )
    title = getattr(fault, "title", None)
    if not (isinstance(title, str) and title):
        yield "has no title", 'say what is broken and what that does, as one sentence: title = "…"'
    if not _all_text(fault.tags):
        yield f"is wrong: its tags is {fault.tags!r}", 'name its class first, each as text: tags = ("our-rules",)'
    yield from _flaws_of_expected(fault)
    yield from _flaws_of_stacks(fault)


def _flaws_of_name(fault: type[Fault]) -> Iterator[Flaw]:
    name = getattr(fault, "name", None)
    if name is None:
        yield "has no name", 'say what scenarios call it: name = "streaming-off"'
    elif not (isinstance(name, str) and _NAME.fullmatch(name) and len(name) <= LONGEST_NAME):
        remedy = f"lower-case letters, digits and hyphens, a letter first, {LONGEST_NAME} at most"
        yield f"is wrong: {name!r} is not a name", remedy


def _flaws_of_expected(fault: type[Fault]) -> Iterator[Flaw]:
    example = 'expected = Expected(signal="archiver", reason="a regular expression")'
    expected = getattr(fault, "expected", None)
    if expected is None:
        yield "has no expected", f"say which signal has to report it, and in which words: {example}"
    elif not isinstance(expected, Expected):
        yield f"is wrong: its expected is {expected!r}", example
    else:
        if expected.signal not in SIGNALS:
            yield f"is wrong: there is no signal {expected.signal!r}", suggest(str(expected.signal), SIGNALS)
        yield from _flaws_of_reason(expected.reason)
        if not (isinstance(expected.within, (int, float)) and expected.within > 0):
            yield f"is wrong: its within is {expected.within!r}", "say in how many seconds it has to be reported"


def _flaws_of_reason(reason: object) -> Iterator[Flaw]:
    wrong = f"is wrong: its reason {reason!r} is not a regular expression"
    if not isinstance(reason, str):
        yield wrong, "say what the signal has to say, as text"
        return
    try:
        re.compile(reason)
    except re.error as error:
        yield f"{wrong}: {error}", r"write \[ for a bracket that is meant as one, \( for a parenthesis, and so on"


def _flaws_of_stacks(fault: type[Fault]) -> Iterator[Flaw]:
    if not (_all_text(fault.stacks) and fault.stacks):
        yield f"is wrong: its stacks is {fault.stacks!r}", 'say where it can be done: stacks = frozenset({"local"})'
        return
    for kind in fault.stacks:
        if kind not in KINDS:
            yield f"is wrong: there is no stack kind {kind!r}", suggest(kind, KINDS)
    if not _maps_text(fault.variables):
        yield f"is wrong: its variables is {fault.variables!r}", 'give values as text: {"IOP_READY_LIMIT": "31"}'
    if not _maps_text(fault.sizes):
        yield f"is wrong: its sizes is {fault.sizes!r}", 'say which volume is how large: sizes = {"repository": "128m"}'
        return
    volumes = [field.name for field in fields(Volumes)]
    for place, size in fault.sizes.items():
        if place not in volumes:
            yield f"is wrong: there is no volume {place!r}", suggest(place, volumes)
        if not _SIZE.fullmatch(size):
            yield f"is wrong: {size!r} is not the size of a volume", "a number of bytes, or 128m, or 1g"


def _all_text(found: object) -> bool:
    """Whether it is several texts, and not one, which would be taken letter by letter."""
    return isinstance(found, Collection) and not isinstance(found, str) and all(isinstance(part, str) for part in found)


def _maps_text(found: object) -> bool:
    return isinstance(found, Mapping) and _all_text(found) and _all_text(found.values())
