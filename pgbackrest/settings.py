"""The check of the settings: whether pgBackRest's and PostgreSQL's make sense, and agree. Standard library only."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from helps import COMMANDS, HELPS, options_of
from memory import STATE, write
from postgres import PENDING, judge_files, server_facts
from probes import STANZA, Findings, Problem, broken, period, query, said, some
from snapshot import look

OWN_EXIT_CODE = re.compile(
    r"""\s*(?:(?:exec|env|nice|ionice|timeout)\s+(?:-\S+\s+|[\d.]+[smh]?\s+)*|\w+=(?:"[^"]*"|'[^']*'|\S)*\s+)*"""
    r"""["']?(?:[^\s"']*/)?pgbackrest["']?\s"""
)
"""A command that ends as pgBackRest does: before it, only assignments and programs that pass an exit code on."""

NOTED = STATE / "backup-options.json"
"""The options of backup.sh's last run."""


def configuration() -> Findings:
    """Ask whether pgBackRest's and PostgreSQL's settings make sense, and agree."""
    warnings = (problem for help_of in HELPS.values() for problem in said(help_of(), configuration=True))
    yield from {problem.seen: problem for problem in warnings}.values()
    found = combined("backup", "archive-push")  # which has the last word, as archive_command is judged
    if found:
        wrong = list(judge_options(found))
        yield from wrong
        yield from judge_restore(options_of("restore"))
        yield from judge_sections({command: options_of(command) for command in COMMANDS})
        yield from judge_noted({problem.seen for problem in wrong})
    server = dict(server_facts())
    if server["pending"]:
        with suppress(Problem):
            server["pending"] = query(PENDING)
    yield from judge_server(server, found)
    yield from judge_files(server)
    yield from judge_command(server["settings"].get("archive_command") or "", found)
    demanded = Path(__file__).with_name("postgresql.conf")
    if demanded.exists():
        yield from judge_demands(server["settings"], demanded.read_text())
    with suppress(Problem):  # the check named repository says so
        yield from judge_identity(server["system"], look()[0].stanza)
    yield f"stanza {STANZA} of {found.get('pg-path')}, {found.get('repo-retention-full')} full backups kept"


def judge_options(options: Mapping[str, str]) -> Iterator[Problem]:
    """Judge pgBackRest's options (its configuration reference has each)."""
    full, archive = options.get("repo-retention-full", ""), options.get("repo-retention-archive", "")
    units = options.get("repo-retention-full-type", "count"), options.get("repo-retention-archive-type", "full")
    counted = units == ("count", "full") and full.isdigit() and archive.isdigit()
    age, window = period("IOP_FULL_BACKUP_AGE") or 0, period("IOP_RECOVERY_WINDOW") or 1
    reach = None
    if full.isdigit():
        # Just after a full backup the one before has gone; by time, one older than that always stays.
        reach = int(full) * 86400 if units[0] == "time" else (int(full) - 1) * age
    partial = units[1] != "full" and archive.isdigit()
    return broken(
        ("pg-path" in options, "critical", f"pg1-path is not set for the stanza {STANZA}", "set PGBACKREST_PG1_PATH"),
        (full, "warning", "repo1-retention-full is not set: the repository fills up", "set it in pgbackrest.conf"),
        (
            reach is None or reach >= window,
            "warning",
            f"repo1-retention-full={full} ({units[0]}) lets a restore reach {reach} s back, less than {window}",
            "raise it",
        ),
        (
            not counted or int(archive) >= int(full),
            "warning",
            f"WAL is kept for {archive} of {full} full backups",
            "raise repo1-retention-archive",
        ),
        (
            not partial,
            "warning",
            f"WAL is kept for {archive} {units[1]} backups only",
            "set repo1-retention-archive-type=full",
        ),
        (options.get("archive-check") != "false", "warning", "archive-check=n: a backup may lack its WAL", "remove it"),
        (
            options.get("archive-header-check") != "false",
            "warning",
            "archive-header-check=n: another cluster's WAL is taken",
            "remove it",
        ),
        (options.get("checksum-page") != "false", "warning", "checksum-page=n: damage goes unseen", "remove it"),
        (options.get("expire-auto") != "false", "warning", "expire-auto=n: the repository fills up", "remove it"),
        (options.get("online") != "false", "warning", "online=n: backups need a stopped server", "remove it"),
        ("exclude" not in options, "warning", "exclude is set: backups are not whole", "remove it"),
        ("archive-push-queue-max" not in options, "warning", "archive-push-queue-max may drop WAL", "remove it"),
    )


def judge_restore(options: Mapping[str, str]) -> Iterator[Problem]:
    """Judge options of restore that stand in its section, and that nobody who restores has asked for."""
    partial = some(name for name in ("db-include", "db-exclude") if name in options)
    targets = some(dict.fromkeys(re.findall(r"\brecovery_target\w*", options.get("recovery-option", ""))))
    mode, hint = options.get("archive-mode"), "remove it: give it to the one restore that needs it"
    return broken(
        (not partial, "warning", f"{partial} is set: no restore is whole", hint),
        (not targets, "warning", f"recovery-option sets {targets}: no restore goes where it should", hint),
        (mode != "off", "warning", "archive-mode=off: a restored server archives nothing", hint),
    )


def judge_sections(commands: Mapping[str, Mapping[str, str]]) -> Iterator[Problem]:
    """Judge whether all commands work on one repository and one cluster, whatever their sections say."""
    for command, found in commands.items():
        for name in ("repo-path", "repo-type", *(["pg-path"] if command != "expire" else [])):
            value, known = (options.get(name, "not set") for options in (found, commands["backup"]))
            seen = f"{name} is {value} for {command}, {known} for backup"
            yield from broken((value == known, "critical", seen, "let both be the same in pgbackrest.conf"))


def note_options() -> None:
    """Note the options that backup.sh takes backups and lets them expire with: its environment may be another."""
    found = combined("backup")
    if found:  # else pgBackRest says why
        with suppress(OSError):  # a state volume that is full or gone stops no backup
            write(NOTED, json.dumps({"stanza": STANZA, "options": found}, indent=2) + "\n")


def judge_noted(known: Collection[str]) -> Iterator[Problem]:
    """Judge the options of the last run of backup.sh by the rules for those found here, which have said ``known``."""
    noted = json.loads(NOTED.read_text()) if NOTED.exists() else {"stanza": None}
    for problem in judge_options(noted["options"]) if noted["stanza"] == STANZA else ():
        if problem.seen not in known:
            hint = "correct the backup worker's environment, then take a backup"
            yield Problem(problem.status, f"the last run of backup.sh: {problem.seen}", hint)


def combined(*commands: str) -> dict[str, str]:
    """Return the options that these commands find, the last one first, and of retention what expire finds."""
    found = {name: value for command in commands for name, value in options_of(command).items()}
    found = {name: value for name, value in found.items() if not name.startswith("repo-retention-")}
    return {**found, **{n: v for n, v in options_of("expire").items() if n.startswith("repo-retention-")}}


def judge_server(server: Mapping[str, Any], options: Mapping[str, str]) -> Iterator[Problem]:
    """Judge PostgreSQL's running settings, and whether they agree with the stanza's."""
    setting = server["settings"].get
    mode, command, directory = setting("archive_mode"), setting("archive_command") or "", setting("data_directory")
    runs = f"archive_command is '{command}'"
    path = options.get("pg-path", directory)
    same = not directory or os.path.normpath(path) == os.path.normpath(directory)
    compound, pushes = re.search(r"[;&|\n]", command), re.search("pgbackrest.*archive-push", command)
    own = compound or not pushes or OWN_EXIT_CODE.match(command)
    return broken(
        (mode == "on", "critical", f"archive_mode is {mode}", "set it to on, restart, take a full backup"),
        (setting("wal_level") != "minimal", "critical", "wal_level is minimal", "set replica, take a full backup"),
        (pushes, "critical", runs, "make it run pgbackrest archive-push"),
        (not compound, "warning", runs, "make it one command, whose exit code counts"),
        (own, "warning", f"{runs}: whose exit code counts is not pgBackRest", "begin it with pgbackrest"),
        (not setting("archive_library"), "critical", "archive_library is set: no archive_command runs", "unset it"),
        (setting("archive_timeout") != "0", "warning", "archive_timeout is 0: idle servers archive nothing", "set 60"),
        (setting("data_checksums") == "on", "warning", "data checksums are off", "pg_checksums --enable adds them"),
        (not server["pending"], "warning", f"not in force yet: {', '.join(server['pending'])}", "restart PostgreSQL"),
        (directory, "unknown", "data_directory is hidden from this user", "GRANT pg_monitor TO it"),
        (same, "critical", f"data_directory is {directory}, pg1-path {path}", "correct PGBACKREST_PG1_PATH"),
    )


def judge_command(command: str, options: Mapping[str, str]) -> Iterator[Problem]:
    """Compare what archive_command gives pgBackRest, as options or variables, with what backups and checks use."""
    given = dict(re.findall(r"--([a-z0-9-]+)[= ]([^\s;&|]+)", command))
    for name, value in re.findall(r"\bPGBACKREST_([A-Z0-9_]+)=([^\s;&|]+)", command):
        given[name.lower().replace("_", "-")] = value
    defaults = {"repo-path": "/var/lib/pgbackrest", "repo-type": "posix", "config": "/etc/pgbackrest/pgbackrest.conf"}
    ours = {**defaults, "stanza": STANZA, **options}
    ours["config"] = os.environ.get("PGBACKREST_CONFIG") or ours["config"]
    for name, text in given.items():
        value, known = text.strip("'\""), ours.get(re.sub(r"^(repo|pg)\d+-", r"\1-", name), "not set")
        judged = re.fullmatch(r"stanza|config|pg\d+-path|repo\d+-(path|type|host|.*(bucket|container|endpoint))", name)
        if judged and known != "<multi>" and not value.startswith("$"):
            same = value.rstrip("/") == str(known).rstrip("/")
            seen = f"archive_command is '{command}': its {name} is {value}, backups use {known}"
            yield from broken((same, "critical", seen, "let both use one configuration"))


def judge_demands(settings: Mapping[str, Any], text: str) -> Iterator[Problem]:
    """Compare what runs with what postgresql.conf beside the scripts demands."""
    demanded = dict(re.findall(r"^(\w+)\s*=\s*'?([\w.]+)'?", text, re.MULTILINE))
    tracks, timeout = demanded.get("track_commit_timestamp"), demanded.get("archive_timeout", "")
    now = settings.get("archive_timeout") or "0"
    include = "is postgresql.conf of this system included, and not overridden (ALTER SYSTEM)?"
    slow = timeout.isdigit() and int(now) > int(timeout)
    return broken(
        (
            tracks != "on" or settings.get("track_commit_timestamp") == "on",
            "warning",
            "track_commit_timestamp is off: a restore to a time cannot be aimed",
            include,
        ),
        (not slow, "warning", f"archive_timeout is {now}, not {timeout}: more can be lost", include),
    )


def judge_identity(system: str, stanza: Mapping[str, Any]) -> Iterator[Problem]:
    """Judge whether each repository is of the cluster that runs."""
    newest = {db["repo-key"]: str(db["system-id"]) for db in stanza["db"]}
    for key, known in newest.items():
        seen = f"repo{key} is of the cluster {known}, the server is {system}"
        yield from broken((known == system, "critical", seen, "is it the right server? else pgbackrest stanza-upgrade"))
