from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256

import pytest

from pytest_iopbackup.dataset.copytext import NULL
from pytest_iopbackup.dataset.generate import CHUNK_ROWS, Dataset, Table, make_dataset
from pytest_iopbackup.dataset.pools import LOCALES, Person, Pools, make_pools
from pytest_iopbackup.dataset.spec import MOST_USERS, DatasetSpec
from pytest_iopbackup.errors import UsageError

FIXED_POOLS = Pools(
    people=(Person("Zoë", "Novák", "cs_CZ"), Person("Ελένη", NULL, "el_GR")),
    handles=("Anna", "bob"),
    companies=("Größe & Söhne",),
    phones=("{}", '{"+49 1"}'),
    profiles=('{"a": 1}', "{}"),
    biographies=("long",),
    avatars=("\\\\x00ff",),
    user_agents=("agent/1.0",),
    addresses=("192.0.2.1", "2001:db8::1/64"),
    networks=(NULL, "10.0.0.0/8"),
    quotas=(NULL, "1.0", "1.00"),
    sentences=("", "one", "two\\nlines"),
)


def digest(dataset: Dataset) -> str:
    summary = sha256()
    for table in dataset.tables:
        for chunk in table.chunks():
            summary.update(chunk.data)
    for large_object in dataset.large_objects:
        summary.update(large_object.content)
    return summary.hexdigest()


def records(table: Table) -> Iterator[dict[str, str]]:
    for chunk in table.chunks():
        for line in chunk.data.decode().split("\n")[:-1]:
            yield dict(zip(table.columns, line.split("\t"), strict=True))


def tables(spec: DatasetSpec) -> dict[str, Table]:
    return {table.name: table for table in make_dataset(spec, FIXED_POOLS).tables}


def test_bytes_are_the_same_on_every_version_of_python() -> None:
    """With pools of our own, that is, as Faker's differ from version to version."""
    found = digest(make_dataset(DatasetSpec(seed=42, users=2500), FIXED_POOLS))
    assert found == "a63f625f9510d31f7a1918a05f9c707c9f88182870e6f78ee8ddc8832957c4a0"


def test_faker_gives_the_same_bytes_in_another_process_and_time_zone() -> None:
    program = (
        "import sys\n"
        "from hashlib import sha256\n"
        "from pytest_iopbackup.dataset.pools import make_pools\n"
        "print(sha256(repr(make_pools(7)).encode()).hexdigest())\n"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "1", "TZ": "Pacific/Apia", "LC_ALL": "C"}
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stdout.strip() == sha256(repr(make_pools(7)).encode()).hexdigest()


def test_making_rows_twice_gives_the_same_bytes() -> None:
    dataset = make_dataset(DatasetSpec(users=50))
    assert digest(dataset) == digest(dataset) == digest(make_dataset(DatasetSpec(users=50)))


def test_another_seed_gives_other_rows_in_every_table() -> None:
    one, other = tables(DatasetSpec(seed=1, users=50)), tables(DatasetSpec(seed=2, users=50))
    same = [name for name in one if list(one[name].chunks()) == list(other[name].chunks())]
    assert same == []


@pytest.mark.parametrize("users", [1, 7, CHUNK_ROWS, CHUNK_ROWS + 1])
def test_every_table_has_as_many_rows_as_announced(users: int) -> None:
    dataset = make_dataset(DatasetSpec(users=users), FIXED_POOLS)
    counted = {table.name: sum(1 for _ in records(table)) for table in dataset.tables}
    assert counted == {table.name: table.rows for table in dataset.tables}
    assert counted["identity.users"] == users
    assert min(counted.values()) > 0
    assert dataset.rows == sum(counted.values())


def test_chunks_say_how_many_rows_they_hold() -> None:
    for table in tables(DatasetSpec(users=CHUNK_ROWS + 1)).values():
        for chunk in table.chunks():
            assert chunk.data.count(b"\n") == chunk.rows


@pytest.mark.parametrize("users", [1, 60, 2001])
def test_keys_are_unique_and_references_lead_somewhere(users: int) -> None:
    rows = {name: list(records(table)) for name, table in tables(DatasetSpec(users=users)).items()}
    users_there = {row["id"] for row in rows["identity.users"]}
    assert len(users_there) == users
    assert len({row["email"].lower() for row in rows["identity.users"]}) == users
    assert {row["manager_id"] for row in rows["identity.users"]} <= users_there | {NULL}
    groups_there = {row["id"] for row in rows["identity.groups"]}
    assert {row["parent_id"] for row in rows["identity.groups"]} <= groups_there | {NULL}
    for name, unique in {
        "membership": ("user_id", "group_id"),
        "credentials": ("user_id", "kind"),
        "sessions": ("token_hash",),
        "documents": ("content",),
    }.items():
        table = rows[f"identity.{name}"]
        assert len({tuple(row[column] for column in unique) for row in table}) == len(table)
        assert {row["user_id"] for row in table} <= users_there
        assert {row["group_id"] for row in table if "group_id" in row} <= groups_there


def test_a_table_without_a_key_has_equal_rows() -> None:
    rows = [tuple(row.values()) for row in records(tables(DatasetSpec(users=100))["identity.login_attempts"])]
    assert len(rows) - len(set(rows)) == 10


def test_pools_speak_every_language() -> None:
    pools = make_pools(42)
    assert {person.locale for person in pools.people} == set(LOCALES)
    assert NULL in {person.family_name for person in pools.people}
    assert max(map(len, pools.biographies)) > 40_000
    assert not any("\t" in field or "\n" in field for field in (*pools.sentences, *pools.biographies, *pools.profiles))


@pytest.mark.parametrize("users", [0, -1, MOST_USERS + 1])
def test_a_number_of_users_out_of_bounds_is_refused(users: int) -> None:
    with pytest.raises(UsageError, match=rf"users is {users}\b") as caught:
        DatasetSpec(users=users)
    assert caught.value.hint is not None
    assert str(MOST_USERS) in caught.value.hint
