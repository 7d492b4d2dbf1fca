"""What pgBackRest says of its commands' options, remembered while nothing changes that it says it by.

Each command has a section of its own in pgBackRest's configuration, so each has to be asked; a cycle of checks would
spend a fifth of its processor time on that. Standard library only.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import threading
import time
from functools import partial
from typing import Any

from memory import Memory, is_recent
from probes import STANZA, ask, once, options_in

COMMANDS = ("archive-push", "backup", "expire", "restore")
"""Those whose options are judged."""
FORMAT = "%p %s %i %m %U %T@ %C@\\n"
"""Of each file: path, size, inode, mode, owner, the times of its content and of all this, to the nanosecond."""

writing = threading.Lock()


@once
def fingerprint() -> str:
    """Return what changes with the program, its environment and its configuration files; places are looked at by find.

    The files are those of pgBackRest's configuration reference (``config``, ``config-include-path``, ``config-path``).
    """
    surroundings = {name: value for name, value in os.environ.items() if name.startswith("PGBACKREST_")}
    path = surroundings.get("PGBACKREST_CONFIG_PATH", "/etc/pgbackrest")
    places = [
        shutil.which("pgbackrest") or "pgbackrest",
        surroundings.get("PGBACKREST_CONFIG", f"{path}/pgbackrest.conf"),
        surroundings.get("PGBACKREST_CONFIG_INCLUDE_PATH", f"{path}/conf.d"),
        "/etc/pgbackrest.conf",
    ]
    found = ask("find", "-L", *places, "-maxdepth", "1", "-printf", FORMAT)  # what is not there, it says
    text = "\n".join([STANZA, *sorted(f"{name}={value}" for name, value in surroundings.items())])
    return hashlib.sha256(f"{text}\n{found.stdout}\n{found.stderr}".encode()).hexdigest()


def help_of(command: str) -> subprocess.CompletedProcess[str]:
    """Return what ``pgbackrest help`` says of a command, or said of it just now."""
    memory = Memory("help")
    known: dict[str, Any] = memory.get(command, {})
    if known.get("by") == fingerprint() and is_recent(known["at"]):
        return subprocess.CompletedProcess(known["args"], 0, known["stdout"], known["stderr"])
    answer = ask("pgbackrest", "help", command)
    if not answer.returncode:
        with writing:
            memory = Memory("help")
            memory[command] = {
                "by": fingerprint(),
                "at": time.time(),
                "args": answer.args,
                "stdout": answer.stdout,
                "stderr": answer.stderr,
            }
            memory.save()
    return answer


HELPS = {command: once(partial(help_of, command)) for command in COMMANDS}
"""What is said of the options of each command."""


def options_of(command: str) -> dict[str, str]:
    """Return pgBackRest's options, as that command finds them."""
    return options_in(HELPS[command]().stdout)


@once
def options() -> dict[str, str]:
    """Return pgBackRest's options, as its commands backup and archive-push find them."""
    return {**options_of("archive-push"), **options_of("backup")}


def is_local() -> bool:
    """Whether there is one repository, and it is a directory of this host."""
    found = options()
    return (
        found.get("repo-type", "posix") in {"posix", "cifs"}
        and found.get("repo-path") != "<multi>"
        and "repo-host" not in found
    )
