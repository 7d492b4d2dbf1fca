"""The checks of health.py: what is asked, and how the answers are judged. Python 3.9 or later, standard library only.

A check is a generator of what it saw (text) and of the problems it found; a problem that it raises ends it. To add a
check, write one and name it in ``CHECKS``.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from probes import STANZA, Problem, ask, limit, options_in, query, said, stanza_in

Findings = Iterator["str | Problem"]


def broken(*rules: tuple[object, str, str, str]) -> Iterator[Problem]:
    """Yield a problem for each rule that does not hold; a rule is (holds, status, what is seen, what to do)."""
    return (Problem(status, seen, hint) for holds, status, seen, hint in rules if not holds)


def repository() -> Findings:
    """Ask whether the repository can be read and written, and holds the stanza; ``test`` writes nothing."""
    answer = ask("pgbackrest", "info", "--output=json")
    yield from said(answer)
    if answer.returncode:
        return
    stanza = stanza_in(answer.stdout, STANZA)
    yield from judge_info(stanza)
    if any(repo["status"]["code"] not in {0, 2} for repo in stanza["repo"]):
        return
    options = options_in(ask("pgbackrest", "help", "backup").stdout)
    path = options.get("repo-path", "/var/lib/pgbackrest")
    if options.get("repo-type", "posix") in {"posix", "cifs"} and path != "<multi>":
        for directory in (f"{path}/{part}/{STANZA}" for part in ("archive", "backup")):
            writable = ask("test", "-w", directory).returncode == 0
            yield from broken((writable, "critical", f"{directory} is not writable", "see its owner, mode and mount"))


def judge_info(stanza: Mapping[str, Any]) -> Findings:
    """Judge each repository's status (``info``'s own numbers: 0 ok, 2 no backup yet) and the newest backup."""
    for repo in stanza["repo"]:
        code = repo["status"]["code"]
        seen, *hints = (" ".join(part.split()) for part in repo["status"]["message"].split("HINT:"))
        seen = f"repo{repo['key']}: {seen} (status {code})"
        if code == 2:
            yield Problem("warning", seen, "backup.sh takes one")
        elif code:
            yield Problem("critical", seen, " ".join(hints) or "is the volume mounted? has stanza-create been run?")
    newest = max(stanza["backup"], key=lambda backup: backup["timestamp"]["stop"], default={"label": "none"})
    damage = f"backup {newest['label']} found pages with wrong checksums"
    yield from broken((not newest.get("error"), "critical", damage, "the database is damaged: pgbackrest info --set"))
    yield f"backups: {len(stanza['backup'])}, newest: {newest['label']}"


def postgresql() -> Findings:
    """Ask whether PostgreSQL answers, and takes writes."""
    server = query(
        "SELECT json_build_object('version', current_setting('server_version'), 'recovery', pg_is_in_recovery(),"
        " 'started', date_trunc('second', pg_postmaster_start_time()))",
        otherwise="critical",
    )
    yield from broken((not server["recovery"], "warning", "in recovery: takes no writes", "see PostgreSQL's log"))
    yield f"version {server['version']}, up since {server['started']}"


def wal_archiving() -> Findings:
    """Ask whether WAL reaches the repository: ``pgbackrest check`` ends the present segment and waits for it there."""
    started = time.monotonic()
    answer = ask("pgbackrest", "check", within="IOP_ARCHIVE_CHECK_TIMEOUT")
    yield from said(answer)
    # The segment is in the repository a moment before PostgreSQL learns that its command has succeeded.
    deadline = time.monotonic() + (0 if answer.returncode else 5)
    while True:
        archiver = query(
            "SELECT json_build_object('archived', last_archived_wal, 'failed', last_failed_wal,"
            " 'failures', failed_count, 'age', extract(epoch FROM clock_timestamp() - last_archived_time),"
            " 'failing', coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'), false),"
            " 'ready', (SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'))"
            " FROM pg_stat_archiver"
        )
        acknowledged = archiver["age"] is not None and archiver["age"] < time.monotonic() - started
        if acknowledged or time.monotonic() >= deadline:
            break
        time.sleep(0.1)
    yield from judge_archiver(archiver, acknowledged=acknowledged or answer.returncode != 0)


def judge_archiver(archiver: Mapping[str, Any], *, acknowledged: bool) -> Findings:
    """Judge pg_stat_archiver, and the number of WAL segments that are marked ``.ready``."""
    failing = f"archiving {archiver['failed']} failed, and no success since ({archiver['failures']} failures)"
    silent = f"WAL is in the repository, but PostgreSQL counts none archived after {archiver['archived']}"
    waiting = f"{archiver['ready']} WAL segments wait for the archive"
    yield from broken(
        (not archiver["failing"], "critical", failing, "PostgreSQL's log names the cause"),
        (acknowledged or archiver["failing"], "critical", silent, "see what archive_command does after pgbackrest"),
        (archiver["ready"] <= limit("IOP_READY_LIMIT"), "warning", waiting, "pg_wal grows: see PostgreSQL's log"),
    )
    yield f"last archived: {archiver['archived']}, waiting: {archiver['ready']}"


def configuration() -> Findings:
    """Ask whether pgBackRest's and PostgreSQL's settings make sense, and agree."""
    answers = [ask("pgbackrest", "help", command) for command in ("backup", "archive-push")]
    yield from {problem.seen: problem for answer in answers for problem in said(answer, configuration=True)}.values()
    options = {name: value for answer in answers for name, value in options_in(answer.stdout).items()}
    if options:
        yield from judge_options(options)
    server = query(
        "SELECT json_build_object('settings', (SELECT json_object_agg(name, setting) FROM pg_settings WHERE name IN"
        " ('archive_mode', 'archive_command', 'archive_library', 'archive_timeout', 'data_checksums', 'data_directory',"
        " 'wal_level')), 'pending', (SELECT coalesce(json_agg(name), '[]') FROM pg_settings WHERE pending_restart))"
    )
    yield from judge_server(server, options)
    yield f"stanza {STANZA} of {options.get('pg-path')}, {options.get('repo-retention-full')} full backups kept"


def judge_options(options: Mapping[str, str]) -> Iterator[Problem]:
    """Judge pgBackRest's options (its configuration reference has each)."""
    full, archive = options.get("repo-retention-full", ""), options.get("repo-retention-archive", "")
    units = options.get("repo-retention-full-type", "count"), options.get("repo-retention-archive-type", "full")
    short = units == ("count", "full") and full.isdigit() and archive.isdigit() and int(archive) < int(full)
    return broken(
        ("pg-path" in options, "critical", f"pg1-path is not set for the stanza {STANZA}", "set PGBACKREST_PG1_PATH"),
        (full, "warning", "repo1-retention-full is not set: the repository fills up", "set it in pgbackrest.conf"),
        (not short, "warning", f"WAL is kept for {archive} of {full} full backups", "raise repo1-retention-archive"),
        (options.get("archive-check") != "false", "warning", "archive-check=n: a backup may lack its WAL", "remove it"),
        (options.get("checksum-page") != "false", "warning", "checksum-page=n: damage goes unseen", "remove it"),
        ("archive-push-queue-max" not in options, "warning", "archive-push-queue-max may drop WAL", "remove it"),
    )


def judge_server(server: Mapping[str, Any], options: Mapping[str, str]) -> Iterator[Problem]:
    """Judge PostgreSQL's running settings, and whether they agree with the stanza's."""
    setting = server["settings"].get
    mode, command, directory = setting("archive_mode"), setting("archive_command") or "", setting("data_directory")
    runs = f"archive_command is '{command}'"
    stanza = re.search(r"--stanza[= ][\"']?([\w-]+)", command)
    path = options.get("pg-path", directory)
    same = not directory or os.path.normpath(path) == os.path.normpath(directory)
    return broken(
        (mode == "on", "critical", f"archive_mode is {mode}", "set it to on, restart, take a full backup"),
        (setting("wal_level") != "minimal", "critical", "wal_level is minimal", "set replica, take a full backup"),
        (re.search("pgbackrest.*archive-push", command), "critical", runs, "make it run pgbackrest archive-push"),
        (not stanza or stanza[1] == STANZA, "critical", runs, f"the stanza is {STANZA}"),
        (not re.search(r"[;&|\n]", command), "warning", runs, "make it one command, whose exit code counts"),
        (not setting("archive_library"), "critical", "archive_library is set: no archive_command runs", "unset it"),
        (setting("archive_timeout") != "0", "warning", "archive_timeout is 0: idle servers archive nothing", "set 60"),
        (setting("data_checksums") == "on", "warning", "data checksums are off", "pg_checksums --enable adds them"),
        (not server["pending"], "warning", f"not in force yet: {', '.join(server['pending'])}", "restart PostgreSQL"),
        (directory, "unknown", "data_directory is hidden from this user", "GRANT pg_monitor TO it"),
        (same, "critical", f"data_directory is {directory}, pg1-path {path}", "correct PGBACKREST_PG1_PATH"),
    )


CHECKS: tuple[Callable[[], Findings], ...] = (repository, postgresql, wal_archiving, configuration)
