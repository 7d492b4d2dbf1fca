"""The rows that one client of the workload changes, and no other.

Since no two clients touch the same row, the ledger's last committed entry for a key gives that row's version, however
the clients' transactions interleaved.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.rows import tuple_row

from pytest_iopbackup.dataset.ledger import Effect
from pytest_iopbackup.dataset.own_tables import SCHEMA as OWN_SCHEMA
from pytest_iopbackup.dataset.own_tables import read as read_own_tables

USERS_PER_CLIENT = 100
SETTINGS_PER_CLIENT = 20
GROUPS = 200

_OF_A_USER = ("identity.membership", "identity.credentials", "identity.sessions")


@dataclass(frozen=True, slots=True)
class Share:
    """A client's rows by table and key, each with the version in which it was read or last committed."""

    groups: tuple[int, ...]
    """Groups to put users into; all clients have the same, none changes them."""
    versions: dict[str, dict[str, int]] = field(default_factory=dict)

    def add(self, table: str, key: str, version: int) -> None:
        """Take a row into the share, or note its new version."""
        self.versions.setdefault(table, {})[key] = version

    def pick(self, rng: Random, table: str) -> tuple[str, int] | None:
        """Choose a row: its key and version; None where the share has none."""
        rows = self.versions.get(table)
        return rng.choice(tuple(rows.items())) if rows else None

    @property
    def own_tables(self) -> tuple[str, ...]:
        """The tables that the client has made and not dropped; each has rows."""
        return tuple(table for table, rows in self.versions.items() if rows and table.startswith(f"{OWN_SCHEMA}."))

    def apply(self, effects: Iterable[Effect]) -> None:
        """Note what a committed transaction left."""
        for effect in effects:
            if effect.version is None:
                del self.versions[effect.table][effect.key]
            else:
                self.add(effect.table, effect.key, effect.version)


def read_shares(connection: psycopg.Connection[Any], clients: int, rng: Random) -> tuple[Share, ...]:
    """Deal some users with all that is theirs, some settings, and all tables that clients made, out to the clients."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        groups = cursor.execute("SELECT id FROM identity.groups ORDER BY id LIMIT %s", [GROUPS]).fetchall()
        shares = tuple(Share(tuple(key for (key,) in groups)) for _ in range(clients))

        # Keys are random: from some key on, and round to the first, are rows from all over the table.
        start = UUID(int=rng.getrandbits(128))
        users = cursor.execute(
            "SELECT id::text, version FROM identity.users ORDER BY id < %s, id LIMIT %s",
            [start, clients * USERS_PER_CLIENT],
        ).fetchall()
        owner = {key: shares[number % clients] for number, (key, _) in enumerate(users)}
        for key, version in users:
            owner[key].add("identity.users", key, version)
        for table in _OF_A_USER:
            query = sql.SQL(
                "SELECT id::text, version, user_id::text FROM {} WHERE user_id = ANY(%s::uuid[]) ORDER BY id"
            ).format(sql.Identifier(*table.split(".")))
            for key, version, user in cursor.execute(query, [list(owner)]).fetchall():
                owner[user].add(table, key, version)

        settings = cursor.execute(
            'SELECT key, version FROM identity.settings ORDER BY key COLLATE "C" LIMIT %s',
            [clients * SETTINGS_PER_CLIENT],
        ).fetchall()
        for number, (key, version) in enumerate(settings):
            shares[number % clients].add("identity.settings", key, version)
    for number, (table, rows) in enumerate(read_own_tables(connection).items()):
        for key, version in rows.items():
            shares[number % clients].add(table, key, version)
    return shares
