#!/usr/bin/env bash
# restore.sh plan    TOKEN [TARGET]              checks a target against the repository and saves the plan; deletes nothing
# restore.sh wipe    TOKEN                       empties the data directory
# restore.sh restore TOKEN [TARGET | --OPTION…]  runs pgbackrest restore, for the target or with exactly these options
# restore.sh fail    TOKEN                       PostgreSQL refused the recovery: it is not to be started on this
# restore.sh finish  TOKEN                       all is done: removes the marker
#
# TARGET: none (the end of the archived WAL), time "2026-01-15 21:30:00+00", lsn X, xid N, name P, or set LABEL.
# TOKEN must be exactly $IOP_RESTORE_TOKEN (default I_UNDERSTAND_THIS_WILL_DELETE_DATABASE_DATA); nothing runs before.
# Exit codes: 0 done; 2 wrong arguments or token; 3 the data directory is in use; 4 refused: the target cannot be
# reached, or that cannot be told; else pgBackRest's own.
set -Eeuo pipefail

fail() { # MESSAGE HINT
    printf 'ERROR: restore.sh: %s\nNothing was touched.\nHINT: %s\n' "$1" "$2" >&2
    exit 2
}

action=${1:-} token=${2:-}
[[ $action =~ ^(plan|wipe|restore|fail|finish)$ ]] || fail "the first argument is no action" "plan, wipe, restore, fail or finish"
# Not [[ ]]: an environment with BASHOPTS=nocasematch would make that blind to upper and lower case.
[ "$token" = "${IOP_RESTORE_TOKEN:-I_UNDERSTAND_THIS_WILL_DELETE_DATABASE_DATA}" ] ||
    fail "the confirmation token is missing or wrong" "this deletes data: the documentation on restoring has the token"
shift 2

export PGBACKREST_STANZA=${PGBACKREST_STANZA:-iop}
unset IOP_RESTORE_TOKEN PGBACKREST_FREQUENCY # pgBackRest would warn of an option that it does not have
exec python3 -B "$(dirname -- "${BASH_SOURCE[0]}")/restore.py" "$action" "$@"
