"""What status.py makes of what it is told: its rows, moods and screen, without a server."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts import SCRIPTS, load

status, sections = load("status"), load("sections")
Problem, Row = sections.Problem, sections.Row
NOW = time.time()


def container(name: str, state: str = "running", health: str | None = "healthy", **more: Any) -> dict[str, Any]:
    """Describe a container as control.sh does."""
    entry: dict[str, Any] = {"Status": state, "Running": state == "running", "ExitCode": 1, "Error": "",
                             "StartedAt": "2026-01-15T21:30:00.123456789Z",
                             "FinishedAt": "2026-01-15T21:31:00Z"}  # fmt: skip
    if health:
        log = [{"Output": "first\n"}, {"Output": "worker backup: no\nheartbeat\n"}]
        entry["Health"] = {"Status": health, "Log": log}
    return {"name": f"/p-{name}-1", "service": name, "oneoff": "False", "restarts": 0, "state": entry, **more}


def backup(label: str, kind: str, age: float, *, error: bool = False, cluster: int = 1) -> dict[str, Any]:
    return {"label": label, "type": kind, "timestamp": {"stop": NOW - age}, "error": error, "database": {"id": cluster},
            "info": {"size": 23 * 2**20, "repository": {"delta": 1536}}}  # fmt: skip


def stanza(*backups: dict[str, Any], newest: str | None = "000000010000000000000003") -> dict[str, Any]:
    return {"backup": list(backups), "db": [{"id": 1}],
            "archive": [{"id": "17-1", "max": newest, "database": {"id": 1}}]}  # fmt: skip


def archiver(**changes: Any) -> dict[str, Any]:
    return {"archived": "000000010000000000000003", "archived_at": NOW - 5, "failed": None, "failing": False,
            "ready": 0, "archived_until": NOW - 7, "last_commit": NOW - 3, "all_archived": False,
            **changes}  # fmt: skip


def told(rows: Any) -> list[tuple[str, str, str]]:
    return [(row.label, row.text, row.mood) for row in rows]


@pytest.fixture
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sections, "time", SimpleNamespace(time=lambda: NOW))


class TestServices:
    def test_each_is_named_even_if_it_is_absent(self) -> None:
        rows = list(sections.services([container("database")]))
        assert [(row.label, row.mood) for row in rows] == [
            ("database", "good"), ("pgbackrest", "bad"), ("pgbackrest_backup", "bad"), ("pgbackrest_check", "bad"),
        ]  # fmt: skip

    def test_a_container_of_a_restore_is_no_service(self) -> None:
        rows = list(sections.services([container("database", oneoff="True")]))
        assert rows[0].text.startswith("absent")

    @pytest.mark.parametrize(
        ("state", "health", "mood", "seen"),
        [
            ("running", "healthy", "good", "healthy, since 2026-01-15 21:30:00 UTC"),
            ("running", "unhealthy", "bad", "worker backup: no heartbeat"),
            ("running", "starting", "bad", "starting"),
            ("running", None, "bad", "none"),
            ("exited", "healthy", "bad", "exit code 1: ./control.sh logs database"),
            ("restarting", "unhealthy", "bad", "restarting, since 2026-01-15 21:31:00 UTC"),
            ("paused", "healthy", "bad", "paused"),
            ("created", None, "bad", "created, since never"),
        ],
    )
    def test_only_running_and_healthy_is_good(self, state: str, health: str | None, mood: str, seen: str) -> None:
        row = sections.service("database", container("database", state, health))
        assert row.mood == mood
        assert seen in row.text

    def test_restarts_are_told(self) -> None:
        assert "restarted 3 times" in sections.service("database", container("database", restarts=3)).text


@pytest.mark.usefixtures("_clock")
class TestBackups:
    @pytest.fixture(autouse=True)
    def state(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setattr(sections, "STATE", tmp_path)
        started = datetime.fromtimestamp(NOW - 600, timezone.utc).isoformat(timespec="milliseconds")
        text = {"state": "waiting", "frequency": 3600, "last": {"started": started.replace("+00:00", "Z")}}
        (tmp_path / "backup.json").write_text(json.dumps(text))
        return tmp_path

    def test_the_last_of_each_type(self) -> None:
        rows = told(
            sections.backups(
                stanza(
                    backup("A", "full", 9000),
                    backup("B", "full", 7200),
                    backup("C", "diff", 3600),
                    backup("OTHER", "full", 1, cluster=2),
                )
            )
        )
        assert rows[:2] == [
            ("last full", "B, 2 h ago\ndatabase 23.0 MiB, repository 1.5 KiB", "good"),
            ("last differential", "C, 60 min ago\ndatabase 23.0 MiB, repository 1.5 KiB", "good"),
        ]
        assert rows[2] == ("next", "in 50 min", "")

    def test_a_damaged_one_is_bad(self) -> None:
        row = next(sections.backups(stanza(backup("A", "full", 9000, error=True))))
        assert (row.mood, "found damaged pages" in row.text) == ("bad", True)

    @pytest.mark.parametrize("text", [None, '{"state": "waiting", "last": null}', '{"state": "stopped", "last": null}'])
    def test_none_and_none_is_being_taken(self, state: Path, text: str | None) -> None:
        """Whatever the worker has recorded: it may be of another repository."""
        if text is None:
            (state / "backup.json").unlink()
        else:
            (state / "backup.json").write_text(text)
        rows = told(sections.backups(stanza(backup("OTHER", "full", 1, cluster=2))))
        assert rows[0] == ("none", "no backup, and none is being taken: ./control.sh backup full", "bad")

    def test_a_recorded_run_is_no_backup(self) -> None:
        assert next(sections.backups(stanza())).mood == "bad"

    def test_none_yet(self, state: Path) -> None:
        (state / "backup.json").write_text('{"state": "running", "last": null}')
        assert told(sections.backups(stanza())) == [
            ("last full", "none yet", "note"), ("last differential", "none yet", ""),
            ("next", "is being taken now", ""),
        ]  # fmt: skip


@pytest.mark.usefixtures("_clock")
class TestRecovery:
    def test_the_newest_moment_is_that_of_the_archived_wal(self) -> None:
        rows = told(sections.recovery(stanza(backup("A", "full", 7200), backup("B", "diff", 60)), archiver()))
        assert [row[0] for row in rows] == ["oldest moment", "newest moment", "WAL archived last"]
        assert rows[0][1] == sections.when(NOW - 7200 + 1)  # that of the backup's end is refused
        assert rows[1][1].endswith("UTC, 7 s ago")
        assert rows[2][1].startswith("000000010000000000000003, ")
        assert rows[2][1].endswith("waiting segments: 0")

    def test_an_idle_server_is_recoverable_until_now(self) -> None:
        rows = told(sections.recovery(stanza(), archiver(all_archived=True)))
        assert rows[1][1].startswith("now: the last commit, ")

    def test_a_damaged_backup_recovers_nothing(self) -> None:
        rows = told(sections.recovery(stanza(backup("A", "full", 7200, error=True)), archiver()))
        assert rows[0] == ("oldest moment", "none: no backup yet", "note")

    def test_failing_archiving_is_bad(self) -> None:
        row = list(sections.recovery(stanza(), archiver(failing=True, failed="000000010000000000000004", ready=7)))[-1]
        assert row.mood == "bad"
        assert "waiting segments: 7; 000000010000000000000004 FAILED" in row.text

    def test_a_server_that_does_not_answer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sections, "upload_time", lambda *_: NOW - 30)
        rows = told(sections.recovery(stanza(), Problem("unknown", "no answer", "")))
        assert rows[1][1].startswith("the end of 000000010000000000000003, in the repository since ")
        assert rows[2] == ("WAL archiving", "the server does not answer: no answer", "bad")


class TestRestore:
    @pytest.fixture(autouse=True)
    def marker(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setattr(sections, "MARKER", tmp_path / "data.restore")
        monkeypatch.setattr(sections, "DATA", tmp_path / "data")
        return tmp_path / "data.restore"

    @pytest.mark.parametrize(
        ("stage", "mood"),
        [
            ("planned", "note"),
            ("wiping", "bad"),
            ("wiped", "bad"),
            ("restoring", "bad"),
            ("failed", "bad"),
            ("restored", "bad"),
        ],
    )
    def test_an_unfinished_one_says_how_to_go_on(self, marker: Path, stage: str, mood: str) -> None:
        words = ["time", "2026-01-15 21:30:00"]
        marker.write_text(json.dumps({"stage": stage, "target": words, "started": "2026-01-15T21:31:00Z"}))
        (row,) = sections.restore([])
        assert row.mood == mood
        assert f"stage {stage}, " in row.text
        assert "./control.sh restore TOKEN time '2026-01-15 21:30:00'" in row.text
        assert ("does not start" in row.text) is (stage in {"wiping", "wiped", "restoring", "failed"})

    @pytest.mark.parametrize("name", ["p-restore-wipe", "p-database_wipe-run-0a1b"])
    def test_one_that_runs_is_not_to_be_run_again(self, marker: Path, name: str) -> None:
        marker.write_text(json.dumps({"stage": "wiping", "target": [], "started": "2026-01-15T21:31:00Z"}))
        (row,) = sections.restore([{**container("database_wipe", oneoff="True"), "name": f"/{name}"}])
        assert row.label == "running"
        assert f"in {name}" in row.text
        assert "TOKEN" not in row.text

    def test_one_that_lacks_only_the_backup_asks_for_that(self, marker: Path) -> None:
        data = marker.with_suffix("")
        data.mkdir()
        (data / "PG_VERSION").touch()
        (data / "recovery.signal").touch()
        marker.write_text(json.dumps({"stage": "restored", "target": [], "started": "2026-01-15T21:31:00Z"}))
        assert [row.label for row in sections.restore([])] == ["UNFINISHED"]
        (data / "recovery.signal").unlink()
        (row,) = sections.restore([])
        assert (row.label, row.mood) == ("no full backup", "bad")
        assert row.text.endswith("the full backup after it is missing: ./control.sh backup full")

    def test_an_unreadable_marker_is_bad(self, marker: Path) -> None:
        marker.write_text("{")
        assert [row.mood for row in status.section(lambda: sections.restore([]))] == ["bad"]


class TestDrill:
    @pytest.mark.parametrize(
        ("record", "label", "mood"),
        [
            ("", "never", "note"),
            ('{"verdict": "passed", "finished": "2026-01-15T21:30:00.5+00:00"}', "passed", "good"),
            ('{"verdict": "failed", "finished": "2026-01-15T21:30:00+00:00"}', "failed", "bad"),
            ('{"verdict": "unknown", "finished": "2026-01-15T21:30:00+00:00"}', "unknown", "bad"),
            ("{", "unknown", "bad"),
            ("[]", "unknown", "bad"),
        ],
    )
    def test_each_verdict(self, record: str, label: str, mood: str) -> None:
        (row,) = status.section(lambda: sections.drill(record))
        assert (row.label, row.mood) == (label, mood)

    @pytest.mark.parametrize(
        ("configuration", "label"),
        [
            ([{"compose.yaml": "ours"}], "failed"),
            ([{"backup.sh": "x"}], "failed"),  # a local one
            ([{"compose.yaml": "theirs"}], "of another system"),
            ([{"compose.yaml": "ours"}, {"compose.yaml": "theirs"}], "of another system"),
        ],
    )
    def test_only_one_of_this_compose_file_counts(self, configuration: list[dict[str, str]], label: str) -> None:
        scenarios = [{"configuration": entry} for entry in configuration]
        report = {"verdict": "failed", "finished": "2026-01-15T21:30:00+00:00", "scenarios": scenarios}
        (row,) = sections.drill(json.dumps(report), "ours")
        assert (row.label, row.mood) == (label, "bad" if label == "failed" else "note")
        assert ("./control.sh drill" in row.text) is (label != "failed")


ROWS = {"Services": [Row("database", "x" * 100, "bad"), Row("pgbackrest", "two\nlines", "good")]}


class TestScreen:
    def test_the_first_line_is_the_verdict(self) -> None:
        assert "NOT HEALTHY (Services: database)" in status.render(ROWS, colour=False).splitlines()[0]
        assert status.render({}, colour=False).splitlines()[0].endswith("  HEALTHY")

    def test_colour_only_when_asked_for(self) -> None:
        assert "\033" not in status.render(ROWS, colour=False)
        assert "\033[31mdatabase" in status.render(ROWS, colour=True)

    @given(st.text(), st.text(), st.sampled_from(["", "good", "bad"]))
    def test_never_wider_than_a_screen(self, label: str, text: str, mood: str) -> None:
        label = " ".join(label.split())[:18]
        lines = status.render({"Title": [Row(label, text, mood)]}, colour=False).split("\n")
        assert max(map(len, lines)) <= 80

    def test_a_part_that_breaks_hides_no_other(self) -> None:
        def rows() -> Any:
            yield Row("fine", "")
            raise KeyError("surprise")

        assert [(row.label, row.mood) for row in status.section(rows)] == [("fine", ""), ("unknown", "bad")]


@pytest.mark.parametrize(
    ("moment", "expected"),
    [("2026-01-15T21:30:00Z", 0), ("2026-01-15T21:30:00.5Z", 0.5), ("2026-01-15T22:30:00.123456789+01:00", 0.123456)],
)
def test_moments(moment: str, expected: float) -> None:
    assert sections.seconds(moment) == pytest.approx(1768512600 + expected)


def test_nothing_there_at_all(tmp_path: Path) -> None:
    """As a script, without any program that it asks: every part is named, the exit code is 1, no traceback."""
    result = subprocess.run(
        [sys.executable, "-B", SCRIPTS / "status.py"], input="\n",
        capture_output=True, text=True, timeout=30, check=False,
        env={"PATH": str(tmp_path), "IOP_STATE_PATH": str(tmp_path), "PGDATA": str(tmp_path / "data")},
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (1, "")
    for title in ("Services", "Backups", "Can be recovered", "Last check", "Volumes", "Last drill"):
        assert f"\n{title}\n" in result.stdout
    assert "cannot run pgbackrest" in result.stdout
