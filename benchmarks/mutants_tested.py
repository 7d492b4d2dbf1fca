"""Rules whose own words no signal repeats, and rules that no scenario can break: for mutate_checks.py.

Each by the beginning of ``module.function: message``, as the program prints it.
"""

SHOWN: dict[str, str] = {
    "checksums.compare: refused.message": "wal-misnamed",
    "health.check: f'cannot write the status file": "status-file-blocked",
    "probes.broken: status, seen": "retention-unset",
    "probes.limit: ": "limit-malformed",
    "probes.once: answer.status": "role-without-rights",
    "probes.period: ": "variable-malformed",
    "probes.query: otherwise": "postgresql-down",
    "probes.said: 'critical', f'{command}: {seen}": "stop-file",
    "probes.said: 'warning', f'{command}: {seen}', 'correct": "option-misspelt",
    "records.complaint: f'{STOPPED}": "wal-rots-before-push",
    "repository.fetch: f'{path} in the repository cannot be read": "wal-unreadable",
    "repository.fetch: f'{path} in the repository cannot be unpacked": "wal-truncated",
    "repository.fetch: f'{path} in the repository does not match": "wal-misnamed",
}
"""The fault that this rule reports, though in other words."""

_CONSISTENCY = "tests/unit/test_checks_consistency.py::"
_RULES, _JUDGING = "tests/unit/test_checks_rules.py::", "tests/unit/test_checks_judging.py::"
_SETTINGS = "tests/unit/test_checks_settings.py::"
_HEALTH, _WORKERS = "tests/unit/test_health.py::", "tests/unit/test_worker_health.py::"
_CONTENT, _HISTORIES = "tests/unit/test_checks_wal_content.py::", "tests/unit/test_checks_wal_histories.py::"

TESTED: dict[str, str] = {
    # What cannot be done on purpose, or not in the seconds of a trial.
    "backups.judge_ages: 'no full backup'": f"{_JUDGING}test_ages_are_judged_by_the_workers_frequency",
    "backups.judge_references: seen": f"{_JUDGING}test_a_backup_needs_those_it_builds_on",
    "backups.judge_window: seen": f"{_JUDGING}test_a_recovery_window_is_judged_once_it_can_be_full",
    "chain.judge: f'{snapshot.name}{identity} holds no WAL": f"{_RULES}test_backups_without_any_wal_are_critical",
    "chain.read: f'no segment": f"{_RULES}test_an_archive_of_which_nothing_can_be_read_is_critical",
    "chain.wal_chain: 'critical', snapshot.name": f"{_RULES}test_an_archive_of_which_nothing_can_be_read_is_critical",
    "health.carry_out: ": f"{_HEALTH}test_a_check_that_fails_itself_is_unknown",
    "pages.complaint: 'does not begin": f"{_CONTENT}test_what_is_no_segment_of_that_place_is_told",
    "pages.complaint: 'holds nothing": f"{_CONTENT}test_what_is_no_segment_of_that_place_is_told",
    "pages.complaint: f'has a page of timeline": f"{_CONTENT}test_a_timeline_begins_with_pages_of_its_parent",
    "pages.complaint: f'has a page of {format_lsn": f"{_CONTENT}test_what_is_no_segment_of_that_place_is_told",
    "pages.complaint: f'is of segments": f"{_CONTENT}test_what_is_no_segment_of_that_place_is_told",
    "probes.fetch_bytes: f'cannot run": f"{_HEALTH}test_a_program_that_is_not_there_is_unknown",
    "probes.said: f'{command}: exit code": f"{_HEALTH}test_a_failure_without_a_message_is_a_problem",
    "probes.said: 'warning', f'{command}: {seen}', hint": _HEALTH
    + "test_errors_and_warnings_are_read_with_code_and_hints",
    "probes.stanza_in: ": f"{_HEALTH}test_info_without_the_stanza_is_unknown",
    "settings.judge_options: f'pg1-path is not set": f"{_HEALTH}test_pgbackrests_options_are_judged",
    "workers.unreported: f'the report": f"{_WORKERS}test_a_run_of_the_checks_has_to_leave_a_report",
    # In pgBackRest's file, where the environment of a trial's commands comes first.
    "settings.judge_sections: seen": f"{_SETTINGS}test_the_sections_of_all_commands_agree",
    "settings.judge_restore: 'archive-mode=off": f"{_SETTINGS}test_options_of_every_restore_are_judged",
    "snapshot.judge_shape: seen": f"{_SETTINGS}test_info_of_another_shape_is_named_with_what_is_missing",
    "snapshot.take: 'backups come and go": f"{_RULES}test_a_repository_that_never_rests_is_unknown",
    "verification.judge: f'verify says nothing": f"{_RULES}test_what_verify_does_not_say_is_unknown",
    "timelines.complaint: 'its ancestors": f"{_HISTORIES}test_the_ancestors_of_a_timeline_follow_each_other",
    "timelines.complaint: f'it left": f"{_HISTORIES}test_a_timeline_begins_where_its_history_says",
    'timelines.complaint: f"it left': f"{_HISTORIES}test_a_timeline_begins_where_its_history_says",
    "workers.complaint: None if": f"{_WORKERS}test_a_worker_is_judged_by_its_record",
    # Depends on PostgreSQL's version: 15 has archive_library, 16 refuses to start an archiver with both.
    "settings.judge_server: 'archive_library": f"{_HEALTH}test_postgresqls_settings_are_judged",
    # Another check reports it first, and is the one that a fault names.
    "backups.judge_copy: 'warning', refused.message": f"{_CONSISTENCY}test_one_that_cannot_be_read_is_told",
    "repository.fetch: f'{problem.seen}": f"{_RULES}test_a_file_that_hangs_is_not_called_damaged",
    "repository.listing: ": f"{_RULES}test_a_listing_is_demanded",
    "settings.judge_server: 'data_directory is hidden": f"{_HEALTH}test_postgresqls_settings_are_judged",
    "snapshot.ask_info: ": f"{_RULES}test_a_repository_that_cannot_be_read_leaves_other_checks_without_an_answer",
    "snapshot.files: 'unknown', refused.message": f"{_RULES}test_a_repository_that_cannot_be_listed_is_unknown",
    "space.look: ": f"{_RULES}test_a_place_that_is_not_there_is_critical",
    'workers.complaint: f"the last run ended {age': f"{_WORKERS}test_a_worker_is_judged_by_its_record",
}
"""The test that must fail without the rule."""
