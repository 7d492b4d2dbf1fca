#!/usr/bin/env bash
# database.sh [OPTION…]   starts PostgreSQL with these options, unless it must not be started on what is in $PGDATA
# database.sh --check     only tells: exit code 0 if it may be started
#
# It must not on half a restore. restore.sh keeps a marker, $PGDATA.restore, from the first deleted byte on; before that
# its stage is "planned", and "restored" when the data directory is complete. Any other stage, or one that cannot be
# read, is a restore that was interrupted or that PostgreSQL refused.
# The lock $PGDATA.lock is held as long as a process of the server lives, so that no restore can touch its files, in
# whatever container; and the other way round. core.sh holds it for moments, so it is waited for. Exit codes: 1 it must
# not be started; else PostgreSQL's own.
set -Eeuo pipefail

fail() { # MESSAGE HINT
    printf 'ERROR: database.sh: %s\nHINT: %s\n' "$1" "$2" >&2
    exit 1
}

require_no_half_restore() {
    local text='' stage='not readable' marker=$PGDATA.restore
    [[ -e $marker ]] || return 0
    if [[ -r $marker ]]; then text=$(<"$marker"); fi
    if [[ $text =~ \"stage\":\ *\"([a-z]+)\" ]]; then stage=${BASH_REMATCH[1]}; fi
    case $stage in
        planned | restored) ;;
        failed)
            fail "PostgreSQL could not recover what the last restore brought back (stage of $marker: failed)" \
                "restore again, to another target: ./control.sh restore TOKEN [TARGET]"
            ;;
        *)
            fail "a restore is under way or was interrupted (stage of $marker: $stage)" \
                "wait for its end, or run the same restore again, which finishes it: ./control.sh restore TOKEN [TARGET]"
            ;;
    esac
}

if [[ ${1:-} == --check ]]; then
    require_no_half_restore
    exit 0
fi
exec {lock}>>"$PGDATA.lock" # inherited by the server
flock --timeout=10 "$lock" || fail "$PGDATA is in use" "a restore works on it: wait for its end"
require_no_half_restore # only now: a restore may have begun or ended since
[[ -e $PGDATA/PG_VERSION ]] ||
    fail "$PGDATA holds no cluster" "the service pgbackrest makes it, or says why not: docker compose logs pgbackrest"
exec postgres "$@"
