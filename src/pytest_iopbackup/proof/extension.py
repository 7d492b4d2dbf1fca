"""PostgreSQL's own extensions, used for the length of a transaction that is rolled back."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from psycopg import sql

from pytest_iopbackup.proof.session import Cursor, words

_STATE = """
SELECT a.default_version, a.installed_version, pg_catalog.pg_is_in_recovery(),
       (SELECT pg_catalog.quote_ident(n.nspname)
        FROM pg_catalog.pg_extension AS e JOIN pg_catalog.pg_namespace AS n ON n.oid = e.extnamespace
        WHERE e.extname = a.name)
FROM pg_catalog.pg_available_extensions AS a WHERE a.name = %s
"""


@dataclass(frozen=True, slots=True)
class Extension:
    """``schema``, quoted, is where its functions are; without it, ``missing`` says why it cannot be used."""

    schema: str | None = None
    missing: str = ""


def provide(cursor: Cursor, name: str) -> Extension:
    """Make an extension usable until the transaction of ``cursor`` ends, which must be one that is rolled back.

    One that is installed is used where it is, brought up to the server's version; any other is created in a schema of
    its own. On a server in recovery only an installed one can be used.
    """
    state = cursor.execute(_STATE, (name,)).fetchone()
    if state is None:
        return Extension(missing=f"the server does not have PostgreSQL's extension {name} (its contrib package)")
    default, installed, in_recovery, schema = state
    if installed is None and in_recovery:
        return Extension(missing=f"extension {name} is not installed, and a server in recovery can install nothing")
    try:
        with cursor.connection.transaction():
            # Asked for by itself, since a library that is missing looks like damage wherever else it is met.
            cursor.execute(sql.SQL("LOAD {}").format(sql.Literal(f"$libdir/{name}")))
            if installed is None:
                schema = f"iop_{name}_{cursor.connection.info.backend_pid}"
                cursor.execute(f"CREATE SCHEMA {schema}")
                cursor.execute(f"CREATE EXTENSION {name} SCHEMA {schema}")
            elif installed != default and not in_recovery:
                cursor.execute(f"ALTER EXTENSION {name} UPDATE")
    except psycopg.errors.UndefinedFile as error:
        return Extension(missing=f"extension {name} cannot be loaded: {words(error)}")
    return Extension(schema=schema)
