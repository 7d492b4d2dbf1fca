"""What PostgreSQL runs with, asked once for all checks, and what its files have for its next start.

Standard library only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from probes import Problem, broken, limit, once, query, some

JUDGED = (
    "archive_mode",
    "archive_command",
    "archive_library",
    "archive_timeout",
    "data_checksums",
    "data_directory",
    "track_commit_timestamp",
    "wal_level",
)
TARGETS = (
    "recovery_target",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_timeline",
    "recovery_target_xid",
)
# A restore by pgBackRest leaves its target in postgresql.auto.conf, by design: the next one takes it out again.
OWN = r"sourcefile ~ '/postgresql\.auto\.conf$'"
SERVER = rf"""
SELECT json_build_object(
    'settings', (SELECT json_object_agg(name, setting) FROM pg_settings WHERE name IN {JUDGED}),
    'pending', (SELECT coalesce(json_agg(name), '[]') FROM pg_settings
        WHERE pending_restart AND source <> 'command line'), -- which wins after a restart, too
    'targets', (SELECT coalesce(json_object_agg(name, setting), '{{}}') FROM pg_settings
        WHERE name IN {TARGETS} AND (NOT {OWN} OR source = 'command line') AND NOT pg_is_in_recovery()),
    'slots', (SELECT coalesce(json_object_agg(slot_name, pg_wal_lsn_diff(
            CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, restart_lsn)),
        '{{}}') FROM pg_replication_slots WHERE NOT active AND restart_lsn IS NOT NULL AND wal_status <> 'lost'),
    'system', (SELECT system_identifier::text FROM pg_control_system()))"""

# Superusers see the files. To look into them marks, for this session, what they have for a restart: such a setting
# "could not be applied", and is no error. The inner query has looked before its outer one asks for the mark.
FILES = rf"""
SELECT json_build_object(
    'errors', (SELECT coalesce(json_agg(concat_ws(' ', sourcefile || ':' || sourceline, name || ':', error)), '[]')
        FROM (SELECT *, (SELECT pending_restart FROM pg_settings AS s WHERE s.name = f.name) AS pending
            FROM pg_file_settings AS f WHERE error IS NOT NULL OFFSET 0) AS wrong WHERE pending IS NOT TRUE),
    'targets', (SELECT coalesce(json_object_agg(name, setting), '{{}}')
        FROM (SELECT DISTINCT ON (name) name, setting FROM pg_file_settings
            WHERE name IN {TARGETS} AND NOT {OWN} AND NOT pg_is_in_recovery()
            ORDER BY name, seqno DESC) AS last))"""

# PostgreSQL also calls one pending that was taken out of its files, where that changes nothing.
PENDING = """
SELECT coalesce(json_agg(name), '[]') FROM pg_settings AS s WHERE pending_restart AND source <> 'command line'
    AND (setting IS DISTINCT FROM boot_val OR EXISTS (SELECT FROM pg_file_settings AS f WHERE f.name = s.name))"""


@once
def server_facts() -> dict[str, Any]:
    """Return the settings in force, and what depends on them."""
    return dict(query(SERVER))


def judge_files(server: Mapping[str, Any]) -> Iterator[Problem]:
    """Judge what waits in the files: a backup has them, too. Whoever may not see them hears of what is in force."""
    try:
        files = query(FILES)
    except Problem:
        files = {"errors": [], "targets": {}}
    hint = "correct it, SELECT pg_reload_conf(); pg_file_settings names all. A restored server would not start either"
    errors = f"the next start of PostgreSQL will fail: {some(files['errors'])}"
    yield from broken((not files["errors"], "critical", errors, hint))
    yield from judge_targets({**server["targets"], **files["targets"]})


def judge_targets(targets: Mapping[str, str]) -> Iterator[Problem]:
    """Judge targets of recovery that a restore does not replace by its own: as if each had been asked for."""
    left = {name: value for name, value in targets.items() if value not in {"", "latest"}}
    timeline = left.pop("recovery_target_timeline", "")
    seen = ", ".join(f"{name} is '{value}'" for name, value in left.items())
    hint = "take it out of PostgreSQL's configuration and restart"
    yield from broken(
        (not left, "critical", f"{seen}: every restore stops there, or fails", hint),
        (not timeline, "warning", f"recovery_target_timeline is '{timeline}': restores do not follow a new one", hint),
    )


def judge_slots(server: Mapping[str, Any]) -> Iterator[Problem]:
    """Judge the replication slots that nobody reads: WAL is kept for them, be it archived or not."""
    for name, held in server["slots"].items():
        seen = f"the replication slot {name}, which nobody reads, holds back {held} bytes of WAL"
        hint = "start its reader again, or SELECT pg_drop_replication_slot(name); max_slot_wal_keep_size bounds it"
        yield from broken((held <= limit("IOP_SLOT_LIMIT") << 20, "warning", seen, hint))
