"""Every error this package raises on purpose.

::

    IopError
    ├── UsageError          what the user asked for cannot be: an option, a scenario, a target
    │   ├── ScenarioError   a scenario file is malformed; carries file and line
    │   └── TargetError     a recovery target is malformed or outside what the repository can restore
    ├── MachineError        the machine lacks something: a binary, space, a permission
    ├── CommandError        a program ended with an exit code that was not expected
    ├── DeadlineError       a condition was not met before its deadline
    ├── RecoveryError       PostgreSQL refused or ended recovery; carries its own words
    ├── ProofError          a comparison could not be carried out (never: it found a difference)
    │   └── GapError        the archived WAL has a hole; what lies behind it cannot be read
    └── HealError           what was broken on purpose could not be undone

Messages say what was checked, what is wrong and what to do; the last part is ``hint``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_iopbackup.stack.base import CommandResult


class IopError(Exception):
    """Base of all errors; ``hint`` says what to do and is printed on a line of its own."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nHINT: {self.hint}" if self.hint else self.message


class UsageError(IopError):
    """What the user asked for cannot be."""


class ScenarioError(UsageError):
    """A scenario file is malformed; the message starts with ``file:line``."""


class TargetError(UsageError):
    """A recovery target is malformed, or outside what the repository can restore."""


class MachineError(IopError):
    """The machine lacks something: a binary, free space, a permission."""


class CommandError(IopError):
    """A program ended with an exit code that was not expected."""

    def __init__(self, result: CommandResult, *, hint: str | None = None) -> None:
        super().__init__(result.describe(), hint=hint)
        self.result = result


class DeadlineError(IopError):
    """A condition was not met before its deadline."""


class RecoveryError(IopError):
    """PostgreSQL refused or ended recovery; the message quotes its log."""


class ProofError(IopError):
    """A comparison could not be carried out; the verdict is then ``unknown``."""


class GapError(ProofError):
    """The archived WAL has a hole: recovery ends there, and what lies behind it cannot be read."""


class HealError(IopError):
    """What was broken on purpose could not be undone; the verdict is then ``unknown``."""
