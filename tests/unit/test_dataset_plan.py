from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from uuid import UUID

import pytest
from psycopg.types.json import Jsonb

from pytest_iopbackup.dataset.ending import Ending
from pytest_iopbackup.dataset.own_tables import MOST_TABLES
from pytest_iopbackup.dataset.plan import DOOMED, Plan, Planner
from pytest_iopbackup.dataset.share import Share
from pytest_iopbackup.dataset.workload import MOST_CLIENTS, WorkloadSpec
from pytest_iopbackup.errors import UsageError

TABLES = ("users", "credentials", "membership", "sessions", "settings")


def full_share() -> Share:
    share = Share(groups=(1, 2, 3))
    for table in TABLES:
        for number in range(400):
            share.add(f"identity.{table}", f"{table}-{number}", 1)
    return share


def follow(
    share: Share, *, write: int = 1, client: int = 0, transactions: int = 600, prepares: bool = True
) -> Iterator[Plan]:
    """Plan transactions, each on what the one before it left."""
    planner = Planner(42, write, client, share, prepares=prepares)
    for number in range(transactions):
        plan = planner.plan(number)
        yield plan
        if plan.commits:
            share.apply(plan.unit.effects)


def readable(plan: Plan) -> list[object]:
    units = [unit for unit in (plan.undone, plan.unit) if unit]
    return [
        plan.ending,
        plan.nested,
        *(
            (
                unit.request_id,
                unit.kind,
                change.effects,
                [p.obj if isinstance(p, Jsonb) else p for p in change.parameters],
            )
            for unit in units
            for change in unit.changes
        ),
    ]


def test_plans_follow_from_seed_numbers_and_share() -> None:
    assert list(map(readable, follow(full_share()))) == list(map(readable, follow(full_share())))


def test_every_kind_and_every_ending_occurs() -> None:
    plans = list(follow(full_share()))
    kinds = Counter(plan.unit.kind for plan in plans)
    assert set(kinds) == {
        "login", "profile", "register", "logout", "setting", "rotate", "leave", "avatar",
        "make", "import", "empty", "alter", "drop",
    }  # fmt: skip
    assert 20 < sum(not plan.commits for plan in plans) < 90
    assert 20 < sum(plan.undone is not None for plan in plans) < 90
    assert 20 < sum(plan.nested for plan in plans) < 90
    assert {plan.ending for plan in plans} == set(Ending)


def test_without_prepared_transactions_the_plans_are_the_same_in_one_phase() -> None:
    with_them, without = list(follow(full_share())), list(follow(full_share(), prepares=False))
    assert {plan.ending for plan in without} == {Ending.COMMIT, Ending.ROLLBACK}
    assert [plan.ending.unprepared for plan in with_them] == [plan.ending for plan in without]
    assert [plan.unit.effects for plan in with_them] == [plan.unit.effects for plan in without]


def test_a_table_of_a_clients_own_has_rows_while_it_is_there_and_its_name_is_used_once() -> None:
    share = full_share()
    made: list[str] = []
    most = 0
    for plan in follow(share, transactions=2000):
        tables = {effect.table for effect in plan.unit.effects if effect.table.startswith("workload.")}
        assert bool(tables) == (plan.unit.kind in {"make", "import", "empty", "alter", "drop"})
        if plan.unit.kind == "make" and plan.commits:
            made += tables
        most = max(most, len(share.own_tables))
    assert len(set(made)) == len(made) > 10
    assert most == MOST_TABLES


def test_tables_that_other_writes_made_are_taken_over() -> None:
    share = full_share()
    for number in range(MOST_TABLES + 1):
        share.add(f"workload.import_0_0_{number}", "key", 1)
    kinds = {plan.unit.kind for plan in follow(share) if share.own_tables}
    assert kinds >= {"import", "empty", "alter", "drop"}


def test_request_ids_never_repeat() -> None:
    ids: list[str] = []
    for write in (1, 2):
        for client in (0, 1):
            for plan in follow(full_share(), write=write, client=client, transactions=200):
                ids += [unit.request_id for unit in (plan.undone, plan.unit) if unit]
    assert len(set(ids)) == len(ids) > 800
    assert all(str(UUID(text)) == text for text in ids)


def test_the_audit_row_with_the_request_id_comes_first() -> None:
    for plan in follow(full_share()):
        for unit in filter(None, (plan.undone, plan.unit)):
            audit, *rest = unit.changes
            assert audit.effects == ()
            assert "audit_log" in audit.query.as_string()
            assert unit.request_id in audit.parameters
            assert rest
            assert all("audit_log" not in change.query.as_string() for change in rest)


def test_committed_versions_go_up_by_one_and_doomed_ones_stand_out() -> None:
    share = full_share()
    versions: dict[tuple[str, str], int] = {
        (table, key): 1 for table in share.versions for key in share.versions[table]
    }
    for plan in follow(share):
        for effect in plan.unit.effects:
            if not plan.commits:
                assert effect.version is None or effect.version > DOOMED - 1
            elif effect.version is None:
                del versions[effect.table, effect.key]
            else:
                assert effect.version == versions.get((effect.table, effect.key), 0) + 1
                versions[effect.table, effect.key] = effect.version
        if plan.undone:
            assert all(effect.version is None or effect.version >= DOOMED for effect in plan.undone.effects)
    assert len(share.own_tables) > 0
    assert versions == {
        (table, key): version for table in share.versions for key, version in share.versions[table].items()
    }


def test_a_client_without_rows_registers_its_own() -> None:
    plan = next(follow(Share(groups=())))
    assert plan.unit.kind == "register"
    assert {effect.table for effect in plan.unit.effects} == {"identity.users", "identity.credentials"}


@pytest.mark.parametrize(
    "wrong",
    [{"number": -1}, {"transactions": 0}, {"clients": 0}, {"clients": MOST_CLIENTS + 1}, {"times": 10}, {"times": -1}],
    ids=str,
)
def test_a_workload_out_of_bounds_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=str(next(iter(wrong.values())))):
        WorkloadSpec(**{"seed": 1, "number": 1, "transactions": 10, "clients": 4, **wrong})
