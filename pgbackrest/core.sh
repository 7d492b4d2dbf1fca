#!/usr/bin/env bash
# core.sh           makes data directory and repository fit each other, before PostgreSQL starts, and goes on looking
# core.sh --health  the container's health check: exit code 0 if they fit, else 1, and what is in the way
#
# No cluster yet: makes one, unless the repository knows the stanza, for then the data was lost and is to be restored.
# Then creates the stanza, or upgrades it if PostgreSQL's major version has changed.
# Trouble does not end it, as an operator must always be able to run pgbackrest here. It is said once, and tried again.
set -Eeuo pipefail

trouble=${TMPDIR:-/tmp}/trouble # what is in the way; empty if nothing is. It is new with each start of the container
if [[ ${1:-} == --health ]]; then
    [[ -e $trouble && ! -s $trouble ]] || {
        cat -- "$trouble"
        exit 1
    }
    echo "data directory and repository fit"
    exit 0
fi

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
password_file=/run/secrets/database_password
interval=3 # seconds between two looks
# Warnings and errors come on stderr; without the time, the same trouble is the same text.
export PGBACKREST_LOG_LEVEL_CONSOLE=off PGBACKREST_LOG_TIMESTAMP=n

fail() { # MESSAGE HINT
    printf 'ERROR: core.sh: %s\nHINT: %s\n' "$1" "$2" >&2
    exit 1
}

say() { printf 'core.sh: %s\n' "$1" >&3; }

# Prints the stanza's status as pgbackrest info has it, the version of PostgreSQL that the repository knows for it, and
# the status in words. Messages may stand before the JSON, which is one line.
look_up_stanza() {
    local info
    info=$(pgbackrest info --output=json) || return
    grep '^\[{' <<<"$info" | python3 -c '
import json, sys
(stanza,) = json.load(sys.stdin)
status, versions = stanza["repo"][0]["status"], [db["version"] for db in stanza["db"]]
print(status["code"], versions[-1] if versions else "none", *status["message"].split())'
}

# Made beside the data directory and renamed when complete: a half-made cluster is never taken for one.
make_cluster() {
    local new=$PGDATA.new password=''
    { read -r password <"$password_file" || true; } 2>/dev/null
    [[ -n $password ]] ||
        fail "no password for the superuser: $password_file is missing, empty or not readable for $(id -un)" \
            "./control.sh up makes it; by hand: secrets/database_password, mode 0444, in a directory of mode 0700"
    # A segment that the spool reports as pushed is not pushed again, and a new cluster starts with the old names.
    rm -rf -- "$new" "${PGBACKREST_SPOOL_PATH:-/var/spool/pgbackrest}/archive/$PGBACKREST_STANZA"
    initdb --pgdata="$new" --username=postgres --pwfile="$password_file" --data-checksums --encoding=UTF8 \
        --locale=C.UTF-8 --auth-local=peer --auth-host=scram-sha-256 --no-sync >/dev/null
    printf "\ninclude = '%s/postgresql.conf'\n" "$here" >>"$new/postgresql.conf"
    printf '\n# Whoever shares a network with this service, by password.\nhost all all all scram-sha-256\n' \
        >>"$new/pg_hba.conf"
    initdb --sync-only --pgdata="$new" >/dev/null 2>&1
    mv --no-target-directory -- "$new" "$PGDATA"
}

fit() { # what is wrong goes to stderr, what it does to file descriptor 3
    local found code version message lock
    "$here/database.sh" --check
    found=$(find "$here" ! -readable -print -quit)
    [[ -z $found ]] || fail "$found is not readable for $(id -un)" "on the host: chmod -R a+rX pgbackrest"
    found=$(look_up_stanza) || fail "the repository cannot be read" "see the messages above, and pgbackrest.conf"
    read -r code version message <<<"$found"
    ((code != 99)) || fail "the repository cannot be read: $message" "is its volume there, and does uid $UID own it?"

    # Held until the stanza is there, so that PostgreSQL does not archive before. A running server has it already.
    exec {lock}>>"$PGDATA.lock"
    if [[ -e $PGDATA/PG_VERSION ]]; then
        flock --nonblock "$lock" || true
        ((code != 1)) || say "WARNING: the repository does not know the stanza $PGBACKREST_STANZA: it begins without backups"
    else
        flock --timeout=5 "$lock" || fail "$PGDATA is in use" "a restore works on it: wait for its end"
        ((code != 0)) || fail "$PGDATA holds no cluster, but the repository has backups (stanza $PGBACKREST_STANZA)" \
            "restore it: ./control.sh restore TOKEN; to begin with an empty database, set another PGBACKREST_STANZA"
        ((code == 1)) || fail "$PGDATA holds no cluster, but the repository knows the stanza $PGBACKREST_STANZA: $message" \
            "there is nothing to restore: to begin with an empty database, set another PGBACKREST_STANZA"
        say "making a new cluster in $PGDATA"
        make_cluster
    fi

    # Offline, as the server is not up yet; its version and identity are read from the data directory.
    if [[ $version == none || $version == "$(<"$PGDATA/PG_VERSION")" ]]; then
        pgbackrest stanza-create --no-online
    else
        say "the stanza is of PostgreSQL $version: upgrading it"
        pgbackrest stanza-upgrade --no-online
        code=2
    fi
    # What the backup worker has recorded is of another repository or cluster: without it, a backup is due at once.
    ((code == 0)) || rm -f -- "${IOP_STATE_PATH:-/var/lib/iop-backup}/backup.json"
}

# Cheap, for it goes on for ever. Whether the repository still works is the check worker's business.
still_fits() { [[ -e $PGDATA/PG_VERSION ]] && "$here/database.sh" --check 2>/dev/null; }

tell() { # TROUBLE: nothing if there is none
    [[ $1 != "$told" ]] || return 0
    told=$1
    printf '%s' "${told:+$told$'\n'}" | tee "$trouble.new" >&2
    mv -f -- "$trouble.new" "$trouble"
}

exec 3>&1 {pause}<> <(:)
trap 'exit 0' TERM INT
told='no answer from the repository yet' outcome=1
echo "$told" >"$trouble"
while :; do
    if ((outcome)) || ! still_fits; then
        outcome=0
        (fit) >"$trouble.messages" 2>&1 & # in the background, as a signal interrupts a wait, but no program
        wait $! || outcome=$?
        if ((outcome)); then
            messages=$(<"$trouble.messages")
            tell "${messages:-ERROR: core.sh: exit code $outcome without a reason}"
        else
            cat "$trouble.messages" >&2
            tell ''
            say "ready: the stanza $PGBACKREST_STANZA fits the cluster in $PGDATA"
        fi
    fi
    read -r -t "$interval" -u "$pause" || true
done
