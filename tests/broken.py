"""Damage that no row shows."""

from __future__ import annotations

from typing import Any

import psycopg

INDEX = "identity.sessions_user_id_idx"
_READY = f"UPDATE pg_index SET indisready = {{}} WHERE indexrelid = '{INDEX}'::regclass"
_MOVE = "UPDATE identity.sessions SET token_hash = set_byte(token_hash, 0, 255 - get_byte(token_hash, 0))"
LOSE_ENTRIES = (_READY.format("false"), _MOVE, _MOVE, _READY.format("true"))
"""Rows are what they were, at another place, and the index is not told."""


def lose_entries(connection: psycopg.Connection[Any]) -> None:
    """Let an index lose its entries; ``connection`` is in autocommit mode."""
    for statement in LOSE_ENTRIES:
        connection.execute(statement.encode())
