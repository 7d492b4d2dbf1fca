"""What docs/faults.md shows works: a third party's fault, and a test that breaks something."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from running import Run

PAGE = (Path(__file__).parents[2] / "docs" / "faults.md").read_text(encoding="utf-8")

MONITORING = """
from pytest_iopbackup.stack.base import Service


def our_monitoring_is_red(drill):
    return drill.stack.host(Service.CHECK).run(["pgbackrest", "check"], timeout=60, check=False).exit_code != 0
"""

pytestmark = pytest.mark.integration


def code(language: str, containing: str) -> str:
    blocks = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (block,) = (block for block in blocks if containing in block)
    return str(block)


def test_a_third_partys_fault_is_tried_like_any_other(tmp_path: Path, base: Path) -> None:
    (tmp_path / "conftest.py").write_text(code("python", "# conftest.py"), encoding="utf-8")
    (tmp_path / "drills").mkdir()
    (tmp_path / "drills" / "streaming-off.yaml").write_text(code("yaml", "name: streaming-off"), encoding="utf-8")
    with Run("pytest", "-q", "--iop-scenario=tag:our-rules", "--iop-stack=local", cwd=tmp_path, base=base) as run:
        assert run.end() == 0, run.output
    assert "1 of 1 faults reported by the signal that must, healed, and nothing lost" in run.output
    record = json.loads((tmp_path / "reports/latest/record.json").read_text())
    fault = record["scenarios"][0]["steps"][0]["fault"]
    assert fault["evidence"] == "max_wal_senders is to change at the next restart"
    assert {reading["signal"]: reading["answer"] for reading in fault["readings"]}["configuration"] == "alarm"
    report = (tmp_path / "reports/latest/report.md").read_text()
    assert "| streaming-off ★ |" in report


def test_a_test_of_ones_own_breaks_something(tmp_path: Path, base: Path) -> None:
    (tmp_path / "conftest.py").write_text(MONITORING, encoding="utf-8")
    text = "from conftest import our_monitoring_is_red\n" + code("python", "iop_stack.broken")
    (tmp_path / "test_mine.py").write_text(text, encoding="utf-8")
    with Run("pytest", "-q", "--strict-markers", "test_mine.py", cwd=tmp_path, base=base) as run:
        assert run.end() == 0, run.output
    assert "1 passed" in run.output


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ("- fault: streaming-of", "there is no fault 'streaming-of'"),
        ("- fault: Streaming", "'Streaming' is not a name"),
        ("- fault: {name: streaming-off}", "is not text"),
    ],
)
def test_a_fault_that_nobody_knows_is_refused_at_collection(tmp_path: Path, base: Path, step: str, words: str) -> None:
    (tmp_path / "conftest.py").write_text(code("python", "# conftest.py"), encoding="utf-8")
    (tmp_path / "drills").mkdir()
    text = code("yaml", "name: streaming-off").replace("- fault: streaming-off", step)
    (tmp_path / "drills" / "streaming-off.yaml").write_text(text, encoding="utf-8")
    with Run("pytest", "-q", "--iop-scenario=streaming-off", "--iop-stack=local", cwd=tmp_path, base=base) as run:
        assert run.end() != 0, run.output
    assert words in run.output
    assert "streaming-off.yaml:7" in run.output
    assert "Traceback" not in run.output
