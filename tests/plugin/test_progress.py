"""What people see while a run goes on."""

from __future__ import annotations

import time

import pytest

from pytest_iopbackup.progress import Narrator


class Listener:
    """Takes what a narrator writes, under a clock of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, live: bool) -> None:
        self.now = 100.0
        self.said: list[str] = []
        self.narrator = Narrator(self.said.append, live=live)
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    def advance(self, seconds: float, done: int, total: int) -> None:
        self.now += seconds
        self.narrator.advance(done, total)


def test_in_a_log_there_are_whole_lines_and_progress_every_five_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Listener(monkeypatch, live=False)
    log.narrator.begin("full [1/7] backup full")
    for _ in range(12):
        log.advance(1, 30, 100)
    log.narrator.end(12.04, "20260115-120000F")
    assert log.said == [
        "full [1/7] backup full …\n",
        "full [1/7] backup full: 30%\n",
        "full [1/7] backup full: 30%\n",
        "full [1/7] backup full  12.0 s  20260115-120000F\n",
    ]


def test_on_a_terminal_there_is_one_line_that_fills_a_bar_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Listener(monkeypatch, live=True)
    terminal.narrator.begin("full [1/7] backup full")
    terminal.advance(0.2, 1, 4)
    terminal.advance(0.05, 2, 4)  # too soon to be shown
    terminal.advance(0.1, 4, 4)
    terminal.narrator.end(0.35, "done")
    assert terminal.said == [
        "full [1/7] backup full …",
        "\r\033[Kfull [1/7] backup full ██████░░░░░░░░░░░░░░░░░░  25%",
        "\r\033[Kfull [1/7] backup full ████████████████████████ 100%",
        "\r\033[Kfull [1/7] backup full  0.3 s  done\n",
    ]


@pytest.mark.parametrize("live", [False, True])
def test_work_of_unknown_size_shows_no_progress(monkeypatch: pytest.MonkeyPatch, *, live: bool) -> None:
    listener = Listener(monkeypatch, live=live)
    listener.narrator.begin("restore")
    listener.advance(60, 3, 0)
    assert len(listener.said) == 1


def test_more_than_all_is_all(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Listener(monkeypatch, live=False)
    log.narrator.begin("restore")
    log.advance(60, 5, 4)
    assert log.said[-1] == "restore: 100%\n"


def test_a_step_with_nothing_to_tell_ends_with_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Listener(monkeypatch, live=False)
    log.narrator.begin("lose the data-directory")
    log.narrator.end(1, "")
    assert log.said[-1] == "lose the data-directory  1.0 s\n"
