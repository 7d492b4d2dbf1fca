"""What a benchmark claims: a bound that is missed, or a figure that is not there, never counts as met."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from bounds import Claim, judge  # noqa: E402 - found by the line above


@pytest.mark.parametrize(
    ("figure", "at_least", "verdict"),
    [
        (4.0, False, "met"),
        (4.01, False, "MISSED"),
        (4.0, True, "met"),
        (3.99, True, "MISSED"),
        (None, False, "unknown"),
        (None, True, "unknown"),
        (float("nan"), False, "MISSED"),
    ],
)
def test_a_figure_is_judged_by_its_bound(figure: float | None, at_least: bool, verdict: str) -> None:
    claim = Claim(what="a thing", figure=figure, bound=4, at_least=at_least)
    assert claim.verdict == verdict
    assert judge(claim) == (0 if verdict == "met" else 1)


def test_claims_are_kept_for_the_table_and_none_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "claims.jsonl"
    monkeypatch.setenv("BENCHMARK_CLAIMS", str(place))
    assert judge(Claim(what="a", figure=1, bound=2, unit="s"), Claim(what="b", figure=3, bound=2, unit="s")) == 1
    kept = [Claim(**json.loads(line)) for line in place.read_text().splitlines()]
    assert [(claim.what, claim.verdict) for claim in kept] == [("a", "met"), ("b", "MISSED")]
    assert "b: 3 s; bound at most 2 s: MISSED" in capsys.readouterr().out
    assert judge() == 1
