"""The fast tier in a comparison: what was learned proves a mark again, and can make nothing pass that is wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from proof_server import facts, server

from clusters import Server
from pytest_iopbackup.proof import readers
from pytest_iopbackup.proof.capture import Capture, capture
from pytest_iopbackup.proof.compare import compare
from pytest_iopbackup.proof.learned import note, recall
from pytest_iopbackup.proof.verdict import verdict
from pytest_iopbackup.proven import Verdict

__all__ = ["server"]

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def worth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "WORTH", 0)


@pytest.fixture
def taken(server: Server, tmp_path: Path) -> Capture:
    with server.connect() as connection:
        connection.execute("DROP TABLE IF EXISTS t; CREATE TABLE t AS SELECT n AS id FROM generate_series(1, 99) AS n")
        return capture(connection, tmp_path / "mark")


def found(server: Server, taken: Capture, user: str = "postgres") -> tuple[Verdict, dict[str, str]]:
    with server.connect(user=user) as connection:
        compared = compare(taken, connection)
    assert ("alone" in compared.algorithm) == any(table.tier == "fast" for table in compared.tables)
    return verdict(facts(compared))[0], {table.table: table.tier for table in compared.tables}


def change(server: Server, statement: str) -> None:
    with server.connect() as connection:
        connection.execute(statement)


def test_proven_once_by_the_portable_tier_then_by_the_fast_one(server: Server, taken: Capture) -> None:
    assert recall(taken) is None
    outcome, tiers = found(server, taken)
    assert (outcome, set(tiers.values())) == (Verdict.PASSED, {"portable"})
    assert recall(taken) is not None
    outcome, tiers = found(server, taken)
    assert (outcome, set(tiers.values())) == (Verdict.PASSED, {"fast"})
    change(server, "UPDATE t SET id = -7 WHERE id = 7")
    outcome, tiers = found(server, taken)
    assert (outcome, tiers["public.t"]) == (Verdict.FAILED, "portable")
    assert set(tiers.values()) == {"fast", "portable"}


def test_what_is_wrong_teaches_nothing(server: Server, taken: Capture) -> None:
    change(server, "DELETE FROM t WHERE id = 7")
    assert found(server, taken)[0] is Verdict.FAILED
    assert recall(taken) is None


def test_a_changed_digest_makes_nothing_pass(server: Server, taken: Capture, tmp_path: Path) -> None:
    """The sabotage: the digests of a wrong database; with the right seal, it would pass."""
    change(server, "UPDATE t SET id = -7 WHERE id = 7")
    with server.connect() as connection:
        wrong = capture(connection, tmp_path / "wrong")
    assert found(server, wrong)[0] is Verdict.PASSED
    forged = recall(wrong)
    assert forged is not None
    content = (wrong.directory / "fast.json").read_text()
    (taken.directory / "fast.json").write_text(content)
    assert recall(taken) is None
    assert found(server, taken)[0] is Verdict.FAILED
    note(taken, forged)
    assert found(server, taken)[0] is Verdict.PASSED, "the seal is what keeps it true"


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"made_with": 1, "digests": [], "seal": null}'])
def test_damaged(taken: Capture, content: str) -> None:
    (taken.directory / "fast.json").write_text(content)
    assert recall(taken) is None


def test_another_capture_of_the_same_rows(server: Server, taken: Capture) -> None:
    assert found(server, taken)[0] is Verdict.PASSED
    assert recall(replace(taken, seal="00" * 32)) is None
    assert json.loads((taken.directory / "fast.json").read_text())["digests"]


def test_an_ordinary_role_reads_by_the_portable_tier(server: Server, taken: Capture) -> None:
    assert found(server, taken)[0] is Verdict.PASSED
    change(server, "CREATE ROLE reader LOGIN BYPASSRLS; GRANT pg_read_all_data TO reader")
    try:
        with server.connect(user="reader") as connection:
            compared = compare(taken, connection)
        assert {table.tier for table in compared.tables} == {"portable"}
        assert all(table.equal for table in compared.tables)
    finally:
        change(server, "DROP OWNED BY reader; DROP ROLE reader")


def test_a_read_only_transaction_reads_by_the_portable_tier(server: Server, taken: Capture) -> None:
    """As a standby's is."""
    assert found(server, taken)[0] is Verdict.PASSED
    options = "-c default_transaction_read_only=on"
    with psycopg.connect(host=str(server.root), user="postgres", dbname="postgres", options=options) as connection:
        compared = compare(taken, connection)
    assert {table.tier for table in compared.tables} == {"portable"}
    assert verdict(facts(compared))[0] is Verdict.PASSED


def test_a_standby_reads_by_the_portable_tier_and_promoted_by_the_fast_one(server: Server, taken: Capture) -> None:
    assert found(server, taken)[0] is Verdict.PASSED
    assert recall(taken) is not None
    server.stop()
    (server.data / "standby.signal").touch()
    server.start()
    outcome, tiers = found(server, taken)
    assert (outcome, set(tiers.values())) == (Verdict.PASSED, {"portable"})
    change(server, "SELECT pg_promote()")
    outcome, tiers = found(server, taken)
    assert (outcome, set(tiers.values())) == (Verdict.PASSED, {"fast"})
