"""Drives the operators' own restore command, with the right confirmation token and with every kind of wrong one."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pytest_iopbackup.cluster.targets import By, Target
from pytest_iopbackup.errors import CommandError, IopError
from pytest_iopbackup.limits import Limits
from pytest_iopbackup.record import OperationFacts
from pytest_iopbackup.stack.base import Service, Stack

_HELPERS = ("wipe", "restore")
_SUMMARY = re.compile(r"(\w[\w ]{0,16}?) {2,}(\S.*)")
_TOLD = ("reached", "backup set used", "new full backup", "seconds")


def restore(stack: Stack, target: Target, limits: Limits) -> OperationFacts:
    """Run ``control.sh restore`` with the token, and return what it reached. Raises CommandError when it fails."""
    words = [] if target.by is By.DEFAULT else [target.by.value, target.value or ""]
    result = stack.operate("restore", stack.token, *words, timeout=limits.restore + limits.recovery)
    if result.exit_code:
        raise CommandError(result)
    # Its summary: a label of up to 17 characters, then the value. A script of one's own may say something else.
    found = filter(None, map(_SUMMARY.fullmatch, result.stdout.splitlines()))
    summary = {match[1]: match[2] for match in found}
    said = ", ".join(f"{label}: {summary[label]}" for label in _TOLD if label in summary)
    return OperationFacts(command=" ".join(["restore TOKEN", *words]), attempts=1, said=said or "done")


def refuse_wrong_tokens(stack: Stack, limits: Limits) -> OperationFacts:
    """Try wrong tokens, on ``control.sh`` and on each helper service directly.

    Raises IopError when one is not blocked, or when anything was touched: a process started anew, a restore begun.
    """
    before = stack.started()
    attempts = 0
    for words in wrong_confirmations(stack.token):
        result = stack.operate("restore", *words, timeout=limits.command)
        attempts += 1
        if result.exit_code == 0:
            raise IopError(f"control.sh restore was not blocked with the arguments {list(words)}: {result.describe()}")
    for helper in _HELPERS:
        for token in (None, "", stack.token.lower(), f"{stack.token} "):
            result = stack.helper(helper, *([] if token is None else [token]), timeout=limits.command)
            attempts += 1
            if result.exit_code == 0:
                raise IopError(f"the {helper} service was not blocked with the token {token!r}: {result.describe()}")
    marker = f"{stack.places.data}.restore"
    host = stack.host(Service.DATABASE)
    begun = host.run(["test", "-e", marker], timeout=limits.command, check=False).exit_code == 0
    if begun or stack.started() != before:
        raise IopError("wrong tokens were blocked, but a restore has begun, or a service was started anew")
    said = f"{attempts} attempts blocked, nothing touched"
    return OperationFacts(command="restore WRONG", attempts=attempts, said=said)


def wrong_confirmations(token: str) -> Sequence[tuple[str, ...]]:
    """Return arguments of ``restore`` that must be blocked: as every slip of the hand would have them."""
    return (
        (),
        ("",),
        (" ",),
        (token[:-1],),
        (token[1:],),
        (f"{token}X",),
        (f"X{token[1:]}",),
        (f" {token}",),
        (f"{token} ",),
        (f"{token}\n",),
        (token.lower(),),
        (token.title(),),
        (token.replace("_", " "),),
        (token.replace("_", "-"),),
        ("time", token, "2026-01-15 21:30:00+00"),
        ("time", "2026-01-15 21:30:00+00", token),
        ("time", "2026-01-15 21:30:00+00"),
        ("--", token),
        (*token.split("_"),),
    )
