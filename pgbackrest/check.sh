#!/usr/bin/env bash
# check.sh: asks whether the backup system works, without changing any data: repository, PostgreSQL, configuration, WAL
# archiving, the archived WAL, backups, space and workers. One line per check on stdout; the same as JSON in
# $IOP_STATE_PATH/check-status.json.
# Time limits and thresholds are variables too: IOP_PROBE_TIMEOUT and others, at the top of probes.py.
# Exit codes, as Nagios has them: 0 ok, 1 warning, 2 critical, 3 unknown (which is never ok).
set -Eeuo pipefail

export PGBACKREST_STANZA=${PGBACKREST_STANZA:-iop}
unset PGBACKREST_FREQUENCY # the worker's own; pgBackRest would warn of an option that it does not have
exec python3 -B "$(dirname -- "${BASH_SOURCE[0]}")/health.py" check
