"""Settings that only a later backup or restore would meet: sections, leftovers, slots, exit codes; info's shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scripts import load

postgres, probes, settings, snapshot = load("postgres"), load("probes"), load("settings"), load("snapshot")
helps = load("helps")


def told(problems: Any) -> list[tuple[str, str]]:
    return [(problem.status, problem.seen) for problem in problems]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, None),
        ({"recovery-option": "restore_command=cp %f %p", "archive-mode": "preserve"}, None),
        ({"db-exclude": "iop"}, "db-exclude is set: no restore is whole"),
        ({"db-include": "iop"}, "db-include is set: no restore is whole"),
        (
            {"recovery-option": "recovery_target=immediate, recovery_target_action=promote"},
            "recovery-option sets recovery_target, recovery_target_action: no restore goes where it should",
        ),
        (
            {"recovery-option": "recovery_target_timeline=1"},
            "recovery-option sets recovery_target_timeline: no restore",
        ),
        ({"archive-mode": "off"}, "archive-mode=off: a restored server archives nothing"),
    ],
)
def test_options_of_every_restore_are_judged(options: dict[str, str], words: str | None) -> None:
    problems = told(settings.judge_restore(options))
    assert [status for status, _ in problems] == (["warning"] if words else [])
    assert all(words in seen for _, seen in problems if words)


ALIKE = {"repo-path": "/repo", "pg-path": "/data"}


@pytest.mark.parametrize(
    ("command", "change", "words"),
    [
        ("restore", {}, None),
        ("restore", {"repo-path": "/other"}, "repo-path is /other for restore, /repo for backup"),
        ("restore", {"repo-type": "s3"}, "repo-type is s3 for restore, not set for backup"),
        ("restore", {"pg-path": "/other"}, "pg-path is /other for restore, /data for backup"),
        ("archive-push", {"repo-path": "/other"}, "repo-path is /other for archive-push"),
        ("expire", {"repo-path": "/other"}, "repo-path is /other for expire"),
        ("expire", {"pg-path": None}, None),  # it has no such option
    ],
)
def test_the_sections_of_all_commands_agree(command: str, change: dict[str, str | None], words: str | None) -> None:
    changed = {name: value for name, value in {**ALIKE, **change}.items() if value is not None}
    problems = told(settings.judge_sections({**dict.fromkeys(helps.COMMANDS, ALIKE), command: changed}))
    assert [status for status, _ in problems] == (["critical"] if words else [])
    assert all(words in seen for _, seen in problems if words)


KEPT = {"pg-path": "/data", "repo-retention-full": "2", "repo-retention-archive": "2"}


@pytest.fixture
def noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the options of the last run of backup.sh are."""
    monkeypatch.setattr(settings, "NOTED", tmp_path / "backup-options.json")
    return tmp_path / "backup-options.json"


@pytest.mark.parametrize(
    ("change", "stanza", "known", "words"),
    [
        ({}, "iop", (), None),
        ({"exclude": "base/5/16384"}, "iop", (), "the last run of backup.sh: exclude is set: backups are not whole"),
        ({"exclude": "base/5/16384"}, "iop", ("exclude is set: backups are not whole",), None),  # told already
        ({"exclude": "base/5/16384"}, "other", (), None),  # that of another deployment
        ({"repo-retention-full": "1"}, "iop", (), "the last run of backup.sh: repo1-retention-full=1 (count) lets a"),
    ],
)
def test_the_options_that_backups_are_really_taken_with_are_judged(
    change: dict[str, str],
    stanza: str,
    known: tuple[str, ...],
    words: str | None,
    noted: Path,
) -> None:
    assert not told(settings.judge_noted(()))  # no backup was taken yet
    noted.write_text(json.dumps({"stanza": stanza, "options": {**KEPT, **change}}))
    problems = told(settings.judge_noted(known))
    assert [status for status, _ in problems] == (["warning"] if words else [])
    assert all(words in seen for _, seen in problems if words)


def test_what_is_kept_is_what_expire_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {
        "backup": {"repo-path": "/repo", "exclude": "base/1", "repo-retention-full": "4"},
        "archive-push": {"repo-path": "/other", "repo-retention-full": "3"},
        "expire": {"repo-path": "/third", "repo-retention-full": "2", "repo-retention-diff": "7"},
    }
    monkeypatch.setattr(settings, "options_of", found.get)
    kept = {"repo-retention-full": "2", "repo-retention-diff": "7"}
    assert settings.combined("backup") == {"repo-path": "/repo", "exclude": "base/1", **kept}
    assert settings.combined("backup", "archive-push") == {"repo-path": "/other", "exclude": "base/1", **kept}


@pytest.mark.parametrize(
    "command",
    [
        'pgbackrest --stanza="${PGBACKREST_STANZA:-iop}" archive-push "%p"',
        "/usr/bin/pgbackrest --stanza=iop archive-push %p",
        "'/opt/pgbackrest 2/bin/pgbackrest'  --stanza=iop archive-push %p".replace(" 2", ""),
        "PGBACKREST_STANZA=iop TZ='a b' pgbackrest archive-push %p",
        "exec env -i A=1 pgbackrest archive-push %p",
        "nice -n 10 ionice -c3 timeout 60s pgbackrest archive-push %p",
    ],
)
def test_an_archive_command_may_end_as_pgbackrest_does(command: str) -> None:
    assert not told(settings.judge_server(server(command), {"pg-path": "/data"}))


@pytest.mark.parametrize(
    "command",
    [
        '/conf/push-hook pgbackrest archive-push "%p"',
        "/bin/true # pgbackrest --stanza=iop archive-push %p",
        "/opt/my-pgbackrest archive-push %p",
        "env pgbackrest-hook pgbackrest archive-push %p",
        "! pgbackrest archive-push %p",
    ],
)
def test_an_archive_command_that_ends_as_something_else_is_told(command: str) -> None:
    seen = f"archive_command is '{command}': whose exit code counts is not pgBackRest"
    assert told(settings.judge_server(server(command), {"pg-path": "/data"})) == [("warning", seen)]


def server(command: str) -> dict[str, Any]:
    """Return a server that is fine."""
    values = {
        "archive_mode": "on", "archive_command": command, "archive_library": "", "archive_timeout": "60",
        "wal_level": "replica", "data_checksums": "on", "data_directory": "/data",
    }  # fmt: skip
    return {"settings": values, "pending": [], "targets": {}, "slots": {}}


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ({}, []),
        ({"recovery_target": "", "recovery_target_time": "", "recovery_target_timeline": "latest"}, []),
        ({"recovery_target": "immediate"}, [("critical", "recovery_target is 'immediate': every restore stops there")]),
        ({"recovery_target_xid": "7"}, [("critical", "recovery_target_xid is '7': every restore stops there")]),
        ({"recovery_target_timeline": "1"}, [("warning", "recovery_target_timeline is '1': restores do not follow")]),
    ],
)
def test_a_recovery_target_left_behind_is_told(targets: dict[str, str], expected: list[tuple[str, str]]) -> None:
    problems = told(postgres.judge_targets(targets))
    assert [status for status, _ in problems] == [status for status, _ in expected]
    assert all(seen.startswith(words) for (_, seen), (_, words) in zip(problems, expected, strict=True))


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        (0, []),
        (1024 << 20, []),
        (
            (1024 << 20) + 1,
            [("warning", f"the replication slot gone, which nobody reads, holds back {(1 << 30) + 1} b")],
        ),
    ],
)
def test_a_slot_may_hold_some_wal_back(held: int, expected: list[tuple[str, str]]) -> None:
    problems = told(postgres.judge_slots({"slots": {"gone": held}}))
    assert [
        (status, seen[: len(words)]) for (status, seen), (_, words) in zip(problems, expected, strict=True)
    ] == expected


def test_whoever_may_not_see_files_hears_of_what_is_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: str) -> Any:
        raise probes.Problem("unknown", "permission denied", "")

    monkeypatch.setattr(postgres, "query", refused)
    found = told(postgres.judge_files({"targets": {"recovery_target": "immediate"}}))
    assert [status for status, _ in found] == ["critical"]


BACKUP = {
    "label": "20260101-000000F", "type": "full", "archive": {"start": None, "stop": None}, "info": {"size": 1},
    "database": {"id": 1, "repo-key": 1}, "timestamp": {"start": 1, "stop": 2},
}  # fmt: skip
STANZA = {
    "name": "iop", "repo": [{"key": 1, "status": {"code": 0, "message": "ok"}}], "backup": [BACKUP],
    "db": [{"id": 1, "repo-key": 1, "system-id": 1, "version": "17"}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"backup": [{**BACKUP, "timestamp": {"start": 1}}]}, "timestamp.stop in backup 20260101-000000F"),
        ({"backup": [{**BACKUP, "timestamp": 1}]}, "timestamp.start in backup 20260101-000000F"),
        ({"backup": [{k: v for k, v in BACKUP.items() if k != "timestamp"}]}, "timestamp.start in backup 2"),
        ({"repo": [{"key": 1}]}, "status.code in repo"),
        ({"db": [{}]}, "id in db"),
    ],
)
def test_info_of_another_shape_is_named_with_what_is_missing(change: dict[str, Any], words: str) -> None:
    snapshot.judge_shape(STANZA)
    snapshot.judge_shape({**STANZA, "backup": []})
    with pytest.raises(probes.Problem) as raised:
        snapshot.judge_shape({**STANZA, **change})
    assert raised.value.status == "unknown"
    assert raised.value.seen.startswith(f"pgbackrest info says nothing of {words}")
    assert "version" in raised.value.hint
