"""pgBackRest's own commands as signals, each as people run it: by itself, and taken at its word."""

from __future__ import annotations

import re
from typing import Any

from pytest_iopbackup.cluster.pgbackrest import json_in
from pytest_iopbackup.detection import Answer
from pytest_iopbackup.errors import IopError
from pytest_iopbackup.signals.base import Said, of_exit_code
from pytest_iopbackup.stack.base import CommandResult, Service, Stack

_VERIFY = ("pgbackrest", "verify", "--output=text", "--verbose", "--log-level-console=warn")
_VERIFY_OK = re.compile(r"^\s*status: ok$", re.MULTILINE)
_TROUBLE = re.compile(
    r"^(?:.*(?:ERROR|WARN): .*|.*(?:missing|checksum invalid|size invalid|other): [1-9]\d*.*)$", re.MULTILINE
)


def pgbackrest_check(stack: Stack, seconds: float) -> Said:
    """Ask ``pgbackrest check``: by its exit code."""
    return of_exit_code(_run(stack, seconds, "pgbackrest", "check", "--log-level-console=warn", service=Service.CHECK))


def pgbackrest_verify(stack: Stack, seconds: float) -> Said:
    """Ask ``pgbackrest verify``: by its text, for it exits 0 on a damaged repository (issue 2502 of pgBackRest)."""
    result = _run(stack, seconds, *_VERIFY)
    trouble = _TROUBLE.findall(result.stdout)
    if result.exit_code:
        return of_exit_code(result)
    if trouble or (_VERIFY_OK.search(result.stdout) is None and "status:" in result.stdout):
        return Said(Answer.ALARM, (trouble or result.stdout.splitlines())[0].strip())
    return Said(Answer.SILENT, "status: ok")


def pgbackrest_info(stack: Stack, seconds: float) -> Said:
    """Ask ``pgbackrest info``: by its status and the error flags of backups, for it exits 0 whatever it finds."""
    result = _run(stack, seconds, "pgbackrest", "info", "--output=json")
    if result.exit_code:
        return of_exit_code(result)
    try:
        stanzas: list[dict[str, Any]] = json_in(result)
    except IopError as error:
        return Said(Answer.ALARM, error.message)
    for stanza in stanzas:
        if stanza["name"] == stack.stanza:
            damaged = [backup["label"] for backup in stanza["backup"] if backup.get("error")]
            if stanza["status"]["code"]:
                return Said(Answer.ALARM, f"status {stanza['status']['code']}: {stanza['status']['message']}")
            if damaged:
                return Said(Answer.ALARM, f"page checksum errors in {', '.join(damaged)}")
            return Said(Answer.SILENT, f"status ok, {len(stanza['backup'])} backups")
    return Said(Answer.ALARM, f"it does not know the stanza {stack.stanza}")


def take_backup(stack: Stack, seconds: float) -> Said:
    """Take a differential backup, as the next run of the worker would: by its exit code."""
    script = str(stack.places.configuration / "backup.sh")
    return of_exit_code(_run(stack, seconds, "bash", script, "diff"))


def _run(stack: Stack, seconds: float, *argv: str, service: Service = Service.BACKUP) -> CommandResult:
    return stack.host(service).run(argv, timeout=seconds, check=False)
