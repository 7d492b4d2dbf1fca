#!/usr/bin/env bash
# What the scenario "pitr" does, by hand: the same commands in the same order, and nothing around them.
# raw_pitr.sh DIRECTORY STACK_HALF SEED_SQL WRITES_DIRECTORY; run as an unprivileged user, PostgreSQL's programs on PATH.
set -Eeuo pipefail

dir=$1 half=$2 seed=$3 writes=$4
mkdir -p "$dir"/template/{data,repo,spool,log,lock,sock,conf}
cp "$half"/* "$dir/template/conf/"
export LANG=C.UTF-8 TZ=UTC PGUSER=postgres PGDATABASE=postgres PGBACKREST_STANZA=iop PGBACKREST_PG1_USER=postgres PGBACKREST_PG1_PORT=5432

use() { # DIRECTORY: from now on, this stack
    stack=$1
    export PGHOST=$stack/sock PGBACKREST_CONFIG=$stack/conf/pgbackrest.conf PGBACKREST_PG1_PATH=$stack/data \
        PGBACKREST_PG1_SOCKET_PATH=$stack/sock PGBACKREST_REPO1_PATH=$stack/repo PGBACKREST_SPOOL_PATH=$stack/spool \
        PGBACKREST_LOG_PATH=$stack/log PGBACKREST_LOCK_PATH=$stack/lock
}

start() {
    pg_ctl --pgdata="$stack/data" --log="$stack/log/postgresql.log" --silent --wait --options="-c listen_addresses='' \
        -c fsync=off -c wal_init_zero=off -c dynamic_shared_memory_type=mmap -c shared_buffers=64MB \
        -c max_wal_size=256MB -c unix_socket_directories=$stack/sock" start
}

stop() { pg_ctl --pgdata="$stack/data" --silent --mode=fast stop; }

write() { # NUMBER: four clients at once
    local client
    for client in 0 1 2 3; do
        PGDATABASE=iop psql --quiet --no-psqlrc --output=/dev/null --file="$writes/$1-$client.sql" &
    done
    wait
}

query() { PGDATABASE=iop psql --quiet --no-psqlrc --tuples-only --no-align --command="$1"; }

rows() { # a digest of every table, as somebody without the harness would write it
    PGDATABASE=iop psql --quiet --no-psqlrc --tuples-only --no-align >"$1" <<'SQL'
SELECT format('SELECT %L, count(*), sum(hashtextextended(t::text, 0)) FROM ONLY %s AS t;', oid::regclass, oid::regclass)
FROM pg_class WHERE relkind = 'r' AND relnamespace = 'identity'::regnamespace ORDER BY oid::regclass::text \gexec
SQL
}

restore() { # MARK'S ROWS, OPTIONS...
    local expected=$1
    shift
    stop
    rm -rf "${stack:?}"/data/*
    pgbackrest restore --log-level-console=warn --set="$diff" --target-timeline=1 --target-action=promote "$@"
    start
    until [[ $(query 'SELECT pg_is_in_recovery()') == f ]]; do sleep 0.02; done
    rows "$stack/after"
    cmp "$expected" "$stack/after"
}

use "$dir/template"
initdb --pgdata="$stack/data" --username=postgres --auth=trust --data-checksums --encoding=UTF8 --locale=C.UTF-8 \
    --no-sync --no-instructions >/dev/null
echo "include '../conf/postgresql.conf'" >>"$stack/data/postgresql.conf"
pgbackrest --log-level-console=warn stanza-create --no-online
start
psql --quiet --no-psqlrc --command='CREATE DATABASE iop'
PGDATABASE=iop psql --quiet --no-psqlrc --set=ON_ERROR_STOP=1 --output=/dev/null --file="$seed"
pgbackrest --log-level-console=warn --type=full backup
pgbackrest --log-level-console=warn --type=diff backup
stop
cp --archive "$dir/template" "$dir/stack"

use "$dir/stack"
start
pgbackrest --log-level-console=warn check
pgbackrest --log-level-console=warn --type=full backup
write 1
pgbackrest --log-level-console=warn --type=diff backup
diff=$(pgbackrest info --output=json | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["backup"][-1]["label"])')
write 2
rows "$stack/before"
lsn=$(query "SELECT pg_create_restore_point('before-mistake')")
xid=$(query 'SELECT pg_current_xact_id()')
time=$(query "SELECT pg_xact_commit_timestamp('$xid'::xid)")
query 'SELECT pg_current_xact_id()' >/dev/null
segment=$(query 'SELECT pg_walfile_name(pg_switch_wal())')
until pgbackrest repo-ls "archive/iop/$(pgbackrest repo-ls archive/iop | grep -- -1)/${segment:0:16}" | grep -q "$segment"; do
    sleep 0.02
done
query 'DELETE FROM identity.membership'
write 3
restore "$stack/before" --type=time --target="$time"
restore "$stack/before" --type=lsn --target="$lsn"
restore "$stack/before" --type=xid --target="$xid"
restore "$stack/before" --type=name --target=before-mistake
pgbackrest --log-level-console=warn check
stop
rm -rf "${dir:?}"/*
