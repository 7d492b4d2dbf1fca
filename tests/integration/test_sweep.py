"""A sweep over real WAL: exact at every point, reproducible by its seed, red where anything is not as it must be."""

from __future__ import annotations

import json
from random import Random

import pytest

from broken import INDEX, lose_entries
from pytest_iopbackup.cluster.lsn import parse_lsn
from pytest_iopbackup.cluster.targets import By, Target
from pytest_iopbackup.drill import Drill
from pytest_iopbackup.errors import ProofError, UsageError
from pytest_iopbackup.everywhere.attempt import Attempt, attempt
from pytest_iopbackup.everywhere.draw import draw, placed
from pytest_iopbackup.everywhere.sweep import Sweep, newest_before
from pytest_iopbackup.everywhere.window import Window, archive_all
from pytest_iopbackup.proven import Verdict

pytestmark = [pytest.mark.integration, pytest.mark.iop_dataset(users=100)]


def written(drill: Drill) -> Window:
    drill.mark("seeded")
    drill.write(20)
    drill.mark("middle")
    drill.backup("diff")
    drill.write(100)
    drill.mark("last")
    archive_all(drill)
    return Window(drill)


def test_all_kinds_are_exact_side_by_side_and_the_seed_gives_them_again(iop_stack: Drill) -> None:
    window = written(iop_stack)
    facts = Sweep(iop_stack, points=8, workers=2).run()
    assert facts.verdict is Verdict.PASSED, facts.reason
    assert facts.seed == iop_stack.seed
    assert len(facts.points) == 8 + 3
    assert facts.restores == 2
    assert {point.mark for point in facts.points} >= {"seeded", "middle", "last"}
    assert {point.by for point in facts.points} >= {"time", "lsn", "xid", "name"}
    assert len({point.backup_set for point in facts.points}) == 2
    assert all(point.tables or point.still for point in facts.points)
    assert len(facts.sound) == facts.restores
    assert all(facts.pages and facts.indexes and facts.constraints for facts in facts.sound)
    assert facts.points[-1].physical is not None
    expected = [point.expected or 0 for point in facts.points]
    assert expected == sorted(expected)
    again = draw(Window(iop_stack), 8, Random(iop_stack.seed))
    assert [place.target.value for place in again] == [point.target for point in facts.points]
    assert [place.target.value for place in draw(window, 8, Random(7))] != [point.target for point in facts.points]


def test_an_index_that_has_lost_an_entry_is_seen_when_recovery_has_ended(iop_stack: Drill) -> None:
    iop_stack.mark("seeded")
    iop_stack.write(20)
    with iop_stack.connect() as connection:
        lose_entries(connection)
    iop_stack.write(20)
    iop_stack.mark("last")
    archive_all(iop_stack)
    window = Window(iop_stack)
    places = [place for place in draw(window, 4, Random(1)) if place.target.by is not By.NAME]
    facts = Sweep(iop_stack, points=4).over(window, places)
    assert [point.verdict for point in facts.points] == [*[Verdict.PASSED] * (len(places) - 1), Verdict.FAILED]
    assert f"index {INDEX}: expected each row's entry in its place" in (facts.points[-1].reason or "")
    alone = attempt(iop_stack, Attempt(name="alone", window=window, target=places[-1].target))
    assert alone.verdict is Verdict.FAILED
    assert f"index {INDEX}: expected " in (alone.reason or "")


def test_a_ledger_that_was_edited_is_seen_at_every_point_behind_it(iop_stack: Drill) -> None:
    window = written(iop_stack)
    path = iop_stack.ledger.path
    lines = path.read_text().splitlines(keepends=True)
    entries = [json.loads(line) for line in lines]
    (at, _) = next((n, one) for n, one in enumerate(entries) if one["outcome"] == "acknowledged" and one["effects"])
    places = draw(window, 4, Random(1))
    path.write_text("".join(lines[:at] + lines[at + 1 :]))
    facts = Sweep(iop_stack, points=4).over(Window(iop_stack), places)
    assert facts.verdict is Verdict.FAILED
    assert "there, though not in the ledger" in (facts.reason or "")
    behind = [point for point in facts.points if (point.expected or 0) > at]
    assert behind
    assert {point.verdict for point in behind} == {Verdict.FAILED}


def test_a_server_that_stands_elsewhere_is_seen(iop_stack: Drill) -> None:
    window = written(iop_stack)
    places = [place for place in draw(window, 12, Random(3)) if place.target.by is By.XID]
    assert len(places) > 2
    # Judged as if it were the place before, though nothing is wrong with the restore itself.
    shifted = [
        type(place)(target=place.target, cut=earlier.cut, position=place.position)
        for place, earlier in zip(places[1:], places, strict=False)
        if place.cut.stop > earlier.cut.stop + 3
    ]
    facts = Sweep(iop_stack, points=1).over(window, shifted[:1])
    assert facts.verdict is Verdict.FAILED
    assert "unexpected" in (facts.reason or "")


@pytest.mark.parametrize("prepares", [False, True])
def test_what_is_locked_at_a_point_is_read_all_the_same(iop_stack: Drill, *, prepares: bool) -> None:
    iop_stack.mark("seeded")
    iop_stack.write(20)
    with iop_stack.connect() as connection:
        connection.execute("BEGIN")
        connection.execute("LOCK TABLE identity.settings IN ACCESS EXCLUSIVE MODE")
        (xid,) = connection.execute("SELECT pg_current_xact_id()::text").fetchone() or ("",)
        if prepares:
            connection.execute("PREPARE TRANSACTION 'iop-workload-locking'")
        connection.execute("COMMIT PREPARED 'iop-workload-locking'" if prepares else "COMMIT")
    iop_stack.write(40)
    iop_stack.mark("last")
    archive_all(iop_stack)
    window = Window(iop_stack)
    locked = placed(window, Target(by=By.XID, value=xid, exclusive=True, timeline=1), window.backups[0])
    assert locked is not None
    places = sorted([locked, *draw(window, 3, Random(2))], key=lambda place: place.position)
    facts = Sweep(iop_stack, points=4).over(window, places)
    assert facts.verdict is Verdict.PASSED, facts.reason
    assert f"transaction {xid}," in next(point.reached or "" for point in facts.points if point.target == xid)
    assert len(facts.points) == len(places)
    assert facts.restores == len({point.backup_set for point in facts.points}) == 1


def test_holes_are_told_before_and_while_a_sweep_goes_on(iop_stack: Drill) -> None:
    window = written(iop_stack)
    places = draw(window, 6, Random(5))
    last = places[-1]
    archive = iop_stack.stack.places.repository / "archive"
    number = last.position[0] >> 24
    (hole,) = archive.rglob(f"0000000100000000{number:08X}-*")
    assert number > parse_lsn(newest_before(window, places[0]).stop_lsn) >> 24
    content = hole.read_bytes()
    hole.unlink()
    facts = Sweep(iop_stack, points=6).over(window, places)
    assert facts.verdict is Verdict.FAILED
    assert "recovery ended before configured recovery target was reached" in (facts.reason or "")
    assert facts.points[0].verdict is Verdict.PASSED
    assert facts.points[-1].verdict is not Verdict.PASSED
    with pytest.raises(ProofError, match=r"WAL segment \w{24} is missing from the repository"):
        Sweep(iop_stack, points=6).run()
    hole.write_bytes(content)


def test_where_nothing_was_written_there_is_nothing_to_sweep(iop_stack: Drill) -> None:
    iop_stack.mark("alone")
    with pytest.raises(UsageError, match="the workload has written nothing"):
        Sweep(iop_stack, points=5).run()


def test_a_sweep_goes_on_over_a_timeline_that_was_left(iop_stack: Drill) -> None:
    written(iop_stack)
    iop_stack.restore("middle", by="lsn")
    iop_stack.write(40)
    iop_stack.mark("onward")
    facts = Sweep(iop_stack, points=9).run()
    assert facts.verdict is Verdict.PASSED, facts.reason
    marks = {point.mark for point in facts.points}
    assert marks >= {"seeded", "middle", "onward"}
    assert "last" not in marks
    assert {ending.timeline for ending in Window(iop_stack).endings} == {1, 2}
