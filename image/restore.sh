#!/usr/bin/env bash
# restore.sh wipe TOKEN             deletes everything in the data directory
# restore.sh restore TOKEN [ARG…]   runs pgbackrest restore with the further arguments
#
# TOKEN must be exactly $IOP_RESTORE_TOKEN (default I_UNDERSTAND_THIS_WILL_DELETE_DATABASE_DATA). Neither does anything
# while a server or another restore works on the data directory: all of them hold a lock on $PGDATA.lock, which the
# kernel keeps as long as one of their processes lives, in whatever container.
# Exit codes: 0 done; 2 wrong arguments or token; 3 the data directory is in use; else find's or pgBackRest's own.
set -Eeuo pipefail

fail() { # EXIT_CODE MESSAGE HINT
    printf 'ERROR: restore.sh: %s\nNothing was touched.\nHINT: %s\n' "$2" "$3" >&2
    exit "$1"
}

action=${1:-} token=${2:-}
[[ $action =~ ^(wipe|restore)$ ]] || fail 2 "wrong action '$action'" "it is wipe or restore"
[[ $token == "${IOP_RESTORE_TOKEN:-I_UNDERSTAND_THIS_WILL_DELETE_DATABASE_DATA}" ]] ||
    fail 2 "the confirmation token is missing or wrong" "this deletes data: the documentation on restoring has the token"
shift 2
[[ $action == restore || $# -eq 0 ]] || fail 2 "too many arguments: $*" "wipe takes the token alone"

exec {lock}>>"$PGDATA.lock" # inherited by pgbackrest, and so held until its end
flock --nonblock "$lock" || fail 3 "$PGDATA is in use" "stop the database service, or wait for the other restore"
# A server that was started some other way holds no lock, but answers: 2 is no answer.
answer=0
pg_isready --quiet || answer=$?
((answer == 2)) || fail 3 "a server answers on $PGHOST" "stop it"

[[ -d $PGDATA ]] || mkdir -m 0700 -- "$PGDATA"
case $action in
    wipe)
        waiting=$(find "$PGDATA" -path '*/archive_status/*.ready' | wc -l)
        ((waiting == 0)) || printf 'WARNING: restore.sh: %d WAL segments go that were never archived\n' "$waiting" >&2
        find "$PGDATA" -mindepth 1 -delete
        printf 'restore.sh: %s is empty\n' "$PGDATA"
        ;;
    restore) exec pgbackrest restore "$@" ;;
esac
