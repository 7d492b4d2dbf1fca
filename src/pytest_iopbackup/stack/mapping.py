"""What a Compose stack calls its parts: ours by default, the user's own by a small mapping file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from pytest_iopbackup.errors import UsageError
from pytest_iopbackup.names import suggest
from pytest_iopbackup.stack.base import TOKEN

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Names of the services."""

    database: str = "database"
    core: str = "pgbackrest"
    backup: str = "pgbackrest_backup"
    check: str = "pgbackrest_check"
    wipe: str = "database_wipe"
    restore: str = "pgbackrest_restore"


@dataclass(frozen=True, slots=True, kw_only=True)
class Volumes:
    """Names of the volumes, as the Compose file has them."""

    data: str = "database_data"
    repository: str = "pg_backrest_repo"
    spool: str = "pg_backrest_spool"
    state: str = "pg_backrest_state"


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """Directories inside the containers."""

    data: str = "/var/lib/postgresql/data"
    repository: str = "/var/lib/pgbackrest"
    spool: str = "/var/spool/pgbackrest"
    state: str = "/var/lib/iop-backup"
    scripts: str = "/pgbackrest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """How the harness logs in to the database as superuser, over the project's network."""

    user: str = "postgres"
    password_file: str = "/run/secrets/database_password"  # noqa: S105 - a path inside the core service's container
    port: int = 5432


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposeMapping:
    """Everything that may be called otherwise in another Compose file."""

    services: Services = field(default_factory=Services)
    volumes: Volumes = field(default_factory=Volumes)
    paths: Paths = field(default_factory=Paths)
    login: Login = field(default_factory=Login)
    variables: Mapping[str, str] = field(default_factory=dict)
    """Our names of variables to theirs, such as ``DATABASE_BACKUP_FREQUENCY: BACKUP_EVERY``."""
    token: str = TOKEN
    """What restores ask for as confirmation."""

    def translate(self, variables: Mapping[str, Value]) -> Mapping[str, Value]:
        """Return variables by their names."""
        return {self.variables.get(name, name): value for name, value in variables.items()}


def read_mapping(path: Path | None) -> ComposeMapping:
    """Return the mapping in a YAML file; without one, our own names. Raises UsageError: file, key, what is wrong."""
    if path is None:
        return ComposeMapping()
    import yaml  # noqa: PLC0415 - only who has such a file needs it

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise UsageError(f"Compose mapping {path}: {error.strerror}", hint="see --iop-compose-map") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"Compose mapping {path}: not YAML: {' '.join(str(error).split())}") from None
    mapping: ComposeMapping = _take(ComposeMapping(), content, str(path))
    return mapping


def _take(default: Any, given: object, where: str) -> Any:
    """Return ``default`` with the values given; every key must be one of its fields, every value of its type."""
    if not isinstance(given, dict):
        raise UsageError(f"Compose mapping {where}: {given!r} is not a mapping")
    known = {entry.name: getattr(default, entry.name) for entry in fields(default)}
    changes: dict[str, Any] = {}
    for key, value in given.items():
        if key not in known:
            raise UsageError(f"Compose mapping {where}: unknown key {key!r}", hint=suggest(str(key), known))
        before = known[key]
        if isinstance(before, dict):
            if not isinstance(value, dict) or not all(isinstance(part, str) for pair in value.items() for part in pair):
                raise UsageError(f"Compose mapping {where}, {key}: not a mapping from name to name")
            changes[key] = value
        elif isinstance(before, (str, int)):
            if type(value) is not type(before) or not value:
                kind = "text" if isinstance(before, str) else "a whole number"
                raise UsageError(f"Compose mapping {where}, {key}: {value!r} is not {kind}")
            changes[key] = value
        else:
            changes[key] = _take(before, value, f"{where}, {key}")
    return replace(default, **changes)
