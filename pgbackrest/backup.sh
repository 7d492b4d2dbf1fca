#!/usr/bin/env bash
# backup.sh [full|diff]: takes one backup with pgBackRest and makes sure that it is listed.
#
# Without an argument: full if the cluster has no full backup or its last one is older than IOP_FULL_BACKUP_AGE seconds
# (default 604800, a week), differential otherwise. Two never run together: $IOP_STATE_PATH/backup.lock (default
# /var/lib/iop-backup) sees to that, besides pgBackRest's own lock.
# Exit codes: 0 the backup is there; 2 a wrong argument or setting; 3 another backup.sh is running; 4 it cannot be told
# which backups there are; 5 pgBackRest ended well, but the new backup is missing or damaged; else pgBackRest's own.
set -Eeuo pipefail

fail() { # EXIT_CODE MESSAGE HINT
    printf 'ERROR: backup.sh: %s\nHINT: %s\n' "$2" "$3" >&2
    exit "$1"
}

list_backups() { # one line each, oldest first: label, type, stop time, ok or damaged
    python3 -B "$here/health.py" backups
}

decide() { # LIST: sets type and reason
    local label kind stop _ last='' age
    while read -r label kind stop _; do
        if [[ $kind == full ]]; then last=$label age=$(($(date +%s) - stop)); fi
    done <<<"$1"
    if [[ -z $last ]]; then
        type=full reason="there is no full backup yet"
    elif ((age > full_age)); then
        type=full reason="the last full backup $last is $age s old, more than $full_age"
    else
        type=diff reason="the last full backup $last is $age s old"
    fi
}

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
state=${IOP_STATE_PATH:-/var/lib/iop-backup}
full_age=${IOP_FULL_BACKUP_AGE:-604800}
export PGBACKREST_STANZA=${PGBACKREST_STANZA:-iop}
unset PGBACKREST_FREQUENCY # the worker's own; pgBackRest would warn of an option that it does not have

type=${1:-} reason="as told"
[[ $# -le 1 && $type =~ ^(full|diff|)$ ]] || fail 2 "wrong arguments: $*" "use backup.sh, backup.sh full or backup.sh diff"
[[ $full_age =~ ^[1-9][0-9]{0,9}$ ]] ||
    fail 2 "IOP_FULL_BACKUP_AGE is '$full_age', not a number of seconds" "set it to a whole number from 1"

# pgBackRest inherits the lock, so that it holds as long as the backup really runs, whatever happens to this script.
{ mkdir -p -- "$state" && exec {lock}>>"$state/backup.lock"; } ||
    fail 2 "cannot write $state/backup.lock as $(id -un)" "set IOP_STATE_PATH, or mount a volume there"
flock --nonblock --conflict-exit-code 3 "$lock" || {
    (($? == 3)) || fail 2 "cannot lock $state/backup.lock" "put IOP_STATE_PATH on a file system with locks"
    fail 3 "another backup is running: $state/backup.lock is locked" "wait for it to end"
}

before=$(list_backups) || fail 4 "the backups of the stanza $PGBACKREST_STANZA cannot be listed" "see the message above"
[[ -n $type ]] || decide "$before"
printf 'backup.sh: %s backup of the stanza %s: %s\n' "$type" "$PGBACKREST_STANZA" "$reason"

# In the background: a signal for this script alone must reach pgBackRest. The worker signals both, and a second SIGTERM
# would cut pgBackRest's clean-up short, so it is passed on only if pgBackRest is still there a second later. A wait that
# a signal interrupts may lose the exit code, hence the loop; read is its pause, as nothing ever writes to that pipe.
exec {pause}<> <(:)
pgbackrest --type="$type" backup {pause}>&- &
child=$! code=0 stop_at=0
trap 'stop_at=$((SECONDS + 2))' TERM INT
while kill -0 "$child" 2>/dev/null; do
    if ((stop_at && SECONDS >= stop_at)); then
        kill -TERM "$child" 2>/dev/null || true
        stop_at=0
    fi
    read -r -t 0.1 -u "$pause" || true
done
wait "$child" || code=$?
if ((code)); then
    printf 'ERROR: backup.sh: pgbackrest backup ended with exit code %d\n' "$code" >&2
    exit "$code"
fi

after=$(list_backups) || fail 4 "the new backup cannot be looked up" "see the message above"
newest=${after##*$'\n'}
[[ -n $newest && $'\n'$before$'\n' != *$'\n'"${newest%% *} "* ]] ||
    fail 5 "pgbackrest backup ended with 0, but lists no new backup" "see pgbackrest info"
[[ $newest == *\ ok ]] ||
    fail 5 "backup ${newest%% *} found pages with wrong checksums" "the database is damaged: see pgbackrest info --set"
printf 'backup.sh: backup %s is complete\n' "${newest%% *}"
