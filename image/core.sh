#!/usr/bin/env bash
# core.sh: makes data directory and repository fit each other, before PostgreSQL starts; then stays, so that an operator
# can run pgbackrest here. /tmp/ready says that it has got that far.
#
# No cluster yet: makes one, unless the repository knows the stanza, for then the data was lost and is to be restored.
# Then creates the stanza, or upgrades it if PostgreSQL's major version has changed.
# Any error ends it; Docker starts it again, so that a repository that comes late is waited for.
set -Eeuo pipefail

fail() { # MESSAGE HINT
    printf 'ERROR: core.sh: %s\nHINT: %s\n' "$1" "$2" >&2
    exit 1
}

say() { printf 'core.sh: %s\n' "$1"; }

# Prints two words: the stanza's status code as pgbackrest info has it, and the version of PostgreSQL that the repository
# knows for it. Messages may stand before the JSON, which is one line.
look_up_stanza() {
    pgbackrest info --output=json | grep '^\[{' | python3 -c '
import json, sys
(stanza,) = json.load(sys.stdin)
print(stanza["status"]["code"], stanza["db"][-1]["version"] if stanza["db"] else "none")'
}

# Made beside the data directory and renamed when complete: a half-made cluster is never taken for one.
make_cluster() {
    local lock new=$PGDATA.new
    exec {lock}>>"$PGDATA.lock"
    flock --nonblock "$lock" || fail "$PGDATA is in use" "a restore or a server works on it: wait for its end"
    # A segment that the spool reports as pushed is not pushed again, and a new cluster starts with the old names.
    rm -rf -- "$new" "${PGBACKREST_SPOOL_PATH:-/var/spool/pgbackrest}/archive/$PGBACKREST_STANZA"
    initdb --pgdata="$new" --username=postgres --data-checksums --encoding=UTF8 --locale=C.UTF-8 \
        --auth-local=peer --auth-host=scram-sha-256 --no-sync >/dev/null
    printf "\ninclude = '%s/postgresql.conf'\n" "${PGBACKREST_CONFIG%/*}" >>"$new/postgresql.conf"
    printf '\n# Whoever shares a network with this service, by password. The superuser has none, and so no way in here.\n%s\n' \
        'host all all all scram-sha-256' >>"$new/pg_hba.conf"
    initdb --sync-only --pgdata="$new"
    mv --no-target-directory -- "$new" "$PGDATA"
    exec {lock}>&-
}

unknown_stanza=1 # info's code for "missing stanza path"
state=$(look_up_stanza) || fail "the repository cannot be read" "see pgbackrest's message above: is the volume mounted?"
read -r code version <<<"$state"

if [[ ! -e $PGDATA/PG_VERSION ]]; then
    ((code == unknown_stanza)) ||
        fail "$PGDATA holds no cluster, but the repository may hold backups of it (stanza $PGBACKREST_STANZA, status $code)" \
            "restore it: ./control.sh restore; for a new, empty database set another PGBACKREST_STANZA"
    say "making a new cluster in $PGDATA"
    make_cluster
fi

# Offline, as the server is not up yet; its version and identity are read from the data directory.
if [[ $version == none || $version == "$(<"$PGDATA/PG_VERSION")" ]]; then
    pgbackrest stanza-create --no-online
else
    say "the stanza is of PostgreSQL $version: upgrading it"
    pgbackrest stanza-upgrade --no-online
fi
touch /tmp/ready
say "ready: the stanza $PGBACKREST_STANZA fits the cluster in $PGDATA"
trap 'exit 0' TERM INT
sleep infinity &
wait
