"""What pgBackRest says is in the repository and what lies there, as of one moment. Standard library only."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from probes import STANZA, Problem, ask, once, said, stanza_in
from repository import Refused, listing

SHAPE = {
    "repo": ("key", "status.code", "status.message"),
    "db": ("id", "repo-key", "system-id", "version"),
    "backup": ("label", "type", "archive.start", "database.id", "database.repo-key", "info.size", "timestamp.start",
               "timestamp.stop"),
}  # fmt: skip
"""What info has to say of each repository, cluster and backup."""
MISSING = object()


@dataclass(frozen=True)
class Snapshot:
    """One repository; ``archive`` and ``files`` are listings of the stanza's WAL and of its backups."""

    key: int
    options: tuple[str, ...]
    """What pgBackRest's commands on this repository need."""
    stanza: Mapping[str, Any]
    archive: Mapping[str, Mapping[str, Any]]
    files: Mapping[str, Mapping[str, Any]]

    @property
    def name(self) -> str:
        """Return what to call the repository: nothing, if it is the only one."""
        return f"repo{self.key}: " if self.options else ""

    @property
    def backups(self) -> list[dict[str, Any]]:
        """Return info's entries of all clusters, the oldest first."""
        mine = (entry for entry in self.stanza["backup"] if entry["database"]["repo-key"] == self.key)
        return sorted(mine, key=lambda entry: (entry["timestamp"]["stop"], entry["label"]))

    @property
    def cluster(self) -> Mapping[str, Any]:
        """Return the present cluster, as info has it."""
        return dict([db for db in self.stanza["db"] if db["repo-key"] == self.key][-1])

    @property
    def present(self) -> list[dict[str, Any]]:
        """Return the backups of the present cluster; those before an upgrade are of no use to it."""
        return [entry for entry in self.backups if entry["database"]["id"] == self.cluster["id"]]

    @property
    def archive_id(self) -> str:
        """Return the directory of the present cluster's WAL, such as ``17-1``."""
        return f"{self.cluster['version']}-{self.cluster['id']}"


def info() -> subprocess.CompletedProcess[str]:
    """Ask for all that the repositories hold."""
    return ask("pgbackrest", "info", "--output=json")


first_info = once(info)


def ask_info(question: Callable[[], subprocess.CompletedProcess[str]] = info) -> dict[str, Any]:
    """Return what the answer says of the stanza; raise an unknown Problem where it cannot."""
    answer = question()
    for problem in said(answer):
        if problem.status == "critical":
            raise Problem("unknown", f"the repository cannot be read: {problem.seen}", problem.hint, problem.code)
    stanza = stanza_in(answer.stdout, STANZA)
    judge_shape(stanza)
    for repo in stanza["repo"]:
        if repo["status"]["code"] not in {0, 2}:
            seen = f"repo{repo['key']} cannot be read: {' '.join(repo['status']['message'].split())}"
            raise Problem("unknown", seen, "see the check named repository")
    return stanza


def judge_info(repos: Iterable[Mapping[str, Any]]) -> Iterator[Problem]:
    """Judge the repositories' status by ``info``'s own numbers: 0 ok; 2, no backup yet, is for the check of those."""
    for repo in repos:
        code = repo["status"]["code"]
        seen, *hints = (" ".join(part.split()) for part in repo["status"]["message"].split("HINT:"))
        if code not in {0, 2}:
            hint = " ".join(hints) or "is the volume mounted? has stanza-create been run?"
            yield Problem("critical", f"repo{repo['key']}: {seen} (status {code})", hint)


def judge_shape(stanza: Mapping[str, Any]) -> None:
    """Raise an unknown Problem where info does not say what all who read it take for granted."""
    for part, fields in SHAPE.items():
        for entry, field in itertools.product(stanza.get(part, [{}]), fields):
            value: Any = entry
            for name in field.split("."):
                value = value.get(name, MISSING) if isinstance(value, Mapping) else MISSING
            if value is MISSING:
                seen = f"pgbackrest info says nothing of {field} in {part} {entry.get('label', 'entries')}"
                raise Problem("unknown", seen, "see pgBackRest's version: was this system tested with it?")


def take(question: Callable[[], subprocess.CompletedProcess[str]] = info) -> list[Snapshot]:
    """Look at every repository. Backups that come or expire meanwhile would not fit the listings: look again."""
    stanza = ask_info(question)
    for _ in range(10):
        several = len(stanza["repo"]) > 1
        found = []
        for repo in stanza["repo"]:
            options = (f"--repo={repo['key']}",) if several else ()
            found.append(Snapshot(repo["key"], options, stanza, files("archive", options), files("backup", options)))
        before, stanza = labels(stanza), ask_info()
        if before == labels(stanza):
            return found
    raise Problem("unknown", "backups come and go faster than they can be looked at", "take them less often")


def files(part: str, options: Iterable[str]) -> dict[str, dict[str, Any]]:
    """List the stanza's part of a repository: its archive or its backups."""
    try:
        return listing(f"{part}/{STANZA}", *options)
    except Refused as refused:
        raise Problem("unknown", refused.message, refused.hint) from refused


def labels(stanza: Mapping[str, Any]) -> list[str]:
    """Return the labels of all backups."""
    return [entry["label"] for entry in stanza["backup"]]


@once
def look() -> list[Snapshot]:
    """Look once, for all who ask."""
    return take(first_info)
