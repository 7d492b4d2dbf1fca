#!/usr/bin/env bash
# backup.sh [full|diff]: takes one backup with pgBackRest, makes sure that it is listed, and only then lets retention work.
#
# Without an argument: full if the cluster has no full backup or its last one is older than IOP_FULL_BACKUP_AGE seconds
# (default 604800, a week; a damaged one at most a day), differential otherwise. Two never run together:
# $IOP_STATE_PATH/backup.lock (default /var/lib/iop-backup) sees to that, besides pgBackRest's own lock.
# Nothing expires when the new backup is damaged, for then the older ones are worth more; nor in the first
# IOP_EXPIRE_PAUSE seconds (default 86400, a day) of a new timeline: a restore to the wrong moment can then be repeated;
# nor while the check worker's verify is at work.
# Exit codes: 0 the backup is there; 2 a wrong argument or setting; 3 another backup.sh is running; 4 it cannot be told
# which backups there are; 5 pgBackRest ended well, but the new backup is missing or damaged; else pgBackRest's own.
set -Eeuo pipefail

fail() { # EXIT_CODE MESSAGE HINT
    printf 'ERROR: backup.sh: %s\nHINT: %s\n' "$2" "$3" >&2
    exit "$1"
}

list_backups() { # [--note]: one line each, oldest first: label, type, stop time, ok or damaged
    python3 -B "$here/health.py" backups "$@"
}

find_last_full() { # LIST: sets last, last_stop and last_state, which is empty for a good one
    local label kind stop state
    last='' last_stop=0 last_state=''
    while read -r label kind stop state; do
        if [[ $kind == full ]]; then last=$label last_stop=$stop last_state=${state#ok}; fi
    done <<<"$1"
}

# Prints how many seconds ago the newest timeline but the first began, by the archived history files.
timeline_age() {
    local listing newest=0
    listing=$(pgbackrest repo-ls --output=json --recurse --filter='\.history$' "archive/$PGBACKREST_STANZA") || return
    while [[ $listing =~ \"time\":([0-9]+)(.*) ]]; do
        if ((BASH_REMATCH[1] > newest)); then newest=${BASH_REMATCH[1]}; fi
        listing=${BASH_REMATCH[2]}
    done
    if ((newest)); then printf '%d' "$(($(date +%s) - newest))"; fi
}

# What verify is reading must not go, or it reports it missing: nothing expires then, and the next run makes up for it.
expire() {
    local age reading
    age=$(timeline_age) || fail 4 "the backup is there, but the archive cannot be listed" "see the message above"
    if [[ -n $age ]] && ((age < pause_seconds)); then
        TZ=UTC printf 'backup.sh: nothing expires before %(%Y-%m-%d %H:%M:%SZ)T: the present timeline, which a restore began, is %d s old\n' \
            "$(($(date +%s) - age + pause_seconds))" "$age"
        return
    fi
    { exec {reading}>>"$state/expire-$PGBACKREST_STANZA.lock"; } ||
        fail 2 "the backup is there, but $state/expire-$PGBACKREST_STANZA.lock cannot be written" "is the volume full?"
    if flock --timeout 2 "$reading"; then
        attend pgbackrest expire || fail "$?" "the backup is there, but pgbackrest expire failed" "see the message above"
    else
        printf 'backup.sh: nothing expires this time: pgbackrest verify is at work\n'
    fi
    exec {reading}>&-
}

decide() { # LIST: sets type and reason
    local age longest=$full_age
    find_last_full "$1"
    if [[ $last_state == damaged ]]; then longest=$((full_age < 86400 ? full_age : 86400)); fi
    if [[ -z $last ]]; then
        type=full reason="there is no full backup yet"
    elif age=$(($(date +%s) - last_stop)) && ((age > longest)); then
        type=full reason="the last full backup $last${last_state:+, $last_state,} is $age s old, more than $longest"
    else
        type=diff reason="the last full backup $last is $age s old"
    fi
}

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
state=${IOP_STATE_PATH:-/var/lib/iop-backup}
full_age=${IOP_FULL_BACKUP_AGE:-604800}
pause_seconds=${IOP_EXPIRE_PAUSE:-86400}
export PGBACKREST_STANZA=${PGBACKREST_STANZA:-iop}
unset PGBACKREST_FREQUENCY # the worker's own; pgBackRest would warn of an option that it does not have

type=${1:-} reason="as told"
[[ $# -le 1 && $type =~ ^(full|diff|)$ ]] || fail 2 "wrong arguments: $*" "use backup.sh, backup.sh full or backup.sh diff"
[[ $full_age =~ ^[1-9][0-9]{0,9}$ ]] ||
    fail 2 "IOP_FULL_BACKUP_AGE is '$full_age', not a number of seconds" "set it to a whole number from 1"

[[ $pause_seconds =~ ^[0-9]{1,10}$ ]] ||
    fail 2 "IOP_EXPIRE_PAUSE is '$pause_seconds', not a number of seconds" "set it to a whole number from 0"

# pgBackRest inherits the lock, so that it holds as long as the backup really runs, whatever happens to this script.
{ mkdir -p -- "$state" && exec {lock}>>"$state/backup.lock"; } ||
    fail 2 "cannot write $state/backup.lock as $(id -un)" "set IOP_STATE_PATH, or mount a volume there"
flock --nonblock --conflict-exit-code 3 "$lock" || {
    (($? == 3)) || fail 2 "cannot lock $state/backup.lock" "put IOP_STATE_PATH on a file system with locks"
    fail 3 "another backup is running: $state/backup.lock is locked" "wait for it to end"
}

before=$(list_backups --note) || fail 4 "the backups of the stanza $PGBACKREST_STANZA cannot be listed" "see the message above"
[[ -n $type ]] || decide "$before"
printf 'backup.sh: %s backup of the stanza %s: %s\n' "$type" "$PGBACKREST_STANZA" "$reason"

# In the background: a signal for this script alone must reach pgBackRest. The worker signals both, and a second SIGTERM
# would cut pgBackRest's clean-up short, so it is passed on only if pgBackRest is still there a second later. A wait that
# a signal interrupts may lose the exit code, hence the loop; read is its pause, as nothing ever writes to that pipe.
exec {pause}<> <(:)
attend() { # COMMAND…
    local child code=0 stop_at=0
    "$@" {pause}>&- &
    child=$!
    trap 'stop_at=$((SECONDS + 2))' TERM INT
    while kill -0 "$child" 2>/dev/null; do
        if ((stop_at && SECONDS >= stop_at)); then
            kill -TERM "$child" 2>/dev/null || true
            stop_at=0
        fi
        read -r -t 0.02 -u "$pause" || true
    done
    wait "$child" || code=$?
    trap - TERM INT
    return "$code"
}

code=0
attend pgbackrest --type="$type" --no-expire-auto backup || code=$?
if ((code)); then
    printf 'ERROR: backup.sh: pgbackrest backup ended with exit code %d\n' "$code" >&2
    exit "$code"
fi

after=$(list_backups) || fail 4 "the new backup cannot be looked up" "see the message above"
newest=${after##*$'\n'}
[[ -n $newest && $'\n'$before$'\n' != *$'\n'"${newest%% *} "* ]] ||
    fail 5 "pgbackrest backup ended with 0, but lists no new backup" "see pgbackrest info"
[[ $newest == *\ ok ]] ||
    fail 5 "backup ${newest%% *} found pages with wrong checksums; nothing expires" \
        "the database is damaged: see pgbackrest info --set, and restore it to a moment before"
expire
printf 'backup.sh: backup %s is complete\n' "${newest%% *}"
