# shellcheck shell=bash
# Sourced by control.sh: the restore workflow. pgbackrest/restore.sh does each step and records it in a marker beside the
# data directory; this orders the steps, and may be killed at any point: the same command takes the restore up again.
: "${top:?is set by control.sh}"

guard=    # the container that stands for this restore as a whole
step=     # the container that works on the data directory now
child=    # the program that is waited for
follower= # docker logs --follow
guard_id= # its identity: the name could be another restore's
rest="the same command takes it up again" # what is to be done after a failure or an interruption
log_since=() # docker logs' option
reached='' last_commit='' # PostgreSQL's words on the end of recovery
laps=() lap_start=0

operate_restore() {
    # Before anything else, and before Docker is asked anything. What was given is never repeated: it may be a password.
    # Not [[ ]]: an environment with BASHOPTS=nocasematch would make that blind to upper and lower case.
    local LC_ALL=C token project plan set label file answer told again="then run the same command again"
    token=$(restore_token)
    [ "${1:-}" = "$token" ] ||
        fail 2 "the confirmation token is missing or wrong; nothing was touched" \
            "a restore deletes the present data: ./control.sh restore TOKEN [TARGET]; the documentation on restoring has the token"
    shift
    [[ $#:${1:-} != 3:time ]] ||
        fail 2 "wrong target: a time is one argument; nothing was touched" "quote it: time \"$2 $3\""
    [[ $#:${1:-} =~ ^(0:|2:(time|lsn|xid|name|set))$ ]] ||
        fail 2 "wrong target: $*; nothing was touched" \
            'after the token nothing, or: time "2026-01-15 21:30:00+00" | lsn X | xid N | name P | set LABEL'
    prepare
    project=$(project_name)
    # What a step prints for this script is in a file without a name: nothing is left of it, whatever happens.
    file=$(mktemp)
    # shellcheck disable=SC2094 # both ends are meant to be of one file
    exec {people}>&2 {answer}>"$file" {told}<"$file"
    rm -f -- "$file"
    trap release EXIT
    trap 'interrupted 1' HUP
    trap 'interrupted 2' INT
    trap 'interrupted 15' TERM
    take_guard "$project-restore"
    lap_start=$SECONDS

    attend docker exec "$guard" /pgbackrest/restore.sh plan "$token" "$@" >&"$answer" || exit $?
    plan=$(cat <&"$told")
    [[ $plan =~ ^(wipe|recover)$ ]] || fail 1 "the plan is '$plan', not wipe or recover" "this is a defect: report it"
    set=$(planned_set)
    lap plan
    if [[ $plan == wipe ]]; then
        say "stopping the workers and the database"
        attend quiet_compose stop pgbackrest_check pgbackrest_backup database ||
            fail 1 "the services cannot be stopped; nothing was deleted" "see the message above, $again"
        lap stop
        say "clearing the data directory"
        run_step wipe database_wipe "$token" || step_failed $? "the data directory could not be cleared"
        lap wipe
        say "restoring the files${set:+ from the backup set $set}"
        run_step files --env PGBACKREST_LOG_LEVEL_CONSOLE=detail pgbackrest_restore "$token" "$@" > >(show_progress) 2>&1 ||
            step_failed $? "the files could not be restored"
        lap restore
    else
        say "the files were restored before: going on with recovery"
    fi

    say "starting the database: it replays the archived WAL"
    note_log
    # Without --no-deps: Compose would take that for a change, and make the container anew at the next up.
    attend quiet_compose up --detach database ||
        fail 1 "the database cannot be started" "see the message above, $again"
    watch_recovery
    # From here on the same command would restore once more, and undo what clients write now.
    rest="the database is restored and runs; what is missing: ./control.sh up, then ./control.sh backup full"
    lap recovery
    say "recovery is over: starting the workers"
    attend quiet_compose up --detach ||
        fail 1 "the database is restored, but not all services start" "see the message above; $rest"
    lap start
    say "taking a full backup: the first one on the new timeline"
    attend take_backup >&"$answer" ||
        fail 1 "the database is restored and runs, but the full backup failed" "see the message above; $rest"
    label=$(cat <&"$told")
    lap backup
    docker exec "$guard" /pgbackrest/restore.sh finish "$token" ||
        fail 1 "all is done, but the restore cannot be marked as finished" "see the message above; $rest"
    attend quiet_compose up --detach --wait || say "WARNING: not all services are healthy: ./control.sh status"
    summarise "$set" "$label" "$@"
}

# lap STAGE: notes the seconds since the last stage ended; there is no next one without the guard.
lap() {
    require_guard
    laps+=("$1 $((SECONDS - lap_start))")
    lap_start=$SECONDS
}

# attend COMMAND…: runs it such that a signal is answered at once, and not only at its end.
attend() {
    local code=0
    "$@" </dev/null &
    child=$!
    wait "$child" || code=$?
    child=
    return "$code"
}

# take_guard NAME: one restore at a time, on whatever host: its container lives as long as this script holds its standard
# input, so even SIGKILL takes it away. Short steps run in it. What an interrupted restore left is removed, if it has ended.
take_guard() {
    local name running said='' deadline=$((SECONDS + 5))
    for name in "$1" "$1-wipe" "$1-files"; do
        while running=$(docker container inspect --format '{{.State.Running}}' "$name" 2>/dev/null); do
            ((SECONDS < deadline)) || fail 3 "another restore is running: container $name" \
                "wait for its end, or end it: docker stop $name; nothing was touched by this one"
            [[ $running == true ]] || docker rm "$name" >/dev/null 2>&1 || true
            sleep 0.2
        done
    done
    coproc GUARD {
        compose run --rm --no-deps --no-TTY --name "$1" --entrypoint sh pgbackrest_restore -c 'echo held && exec cat'
    }
    hold=${GUARD[1]}
    IFS= read -r said <&"${GUARD[0]}" || true
    [[ $said == held ]] ||
        fail 1 "no container can be started for the restore; nothing was touched" "see the message above: is another restore starting?"
    guard=$1
    guard_id=$(docker container inspect --format '{{.Id}}' "$guard")
}

require_guard() {
    docker container inspect "$guard_id" >/dev/null 2>&1 ||
        fail 1 "the container $guard, which stands for this restore, is gone: ended, as another restore could begin" "$rest"
}

release() {
    [[ -z $follower ]] || kill "$follower" 2>/dev/null || true
    [[ -z $guard ]] || exec {hold}>&-
}

interrupted() { # SIGNAL
    # Where standard error is a pipe now, its reader may be dead.
    trap '' HUP INT TERM PIPE
    exec 2>&"$people"
    [[ -z $child ]] || kill "$child" 2>/dev/null || true
    [[ -z $step ]] || docker stop "$step" >/dev/null 2>&1 || true
    (fail 1 "interrupted" "./control.sh status says where the restore stands; $rest") || exit $((128 + $1))
}

# run_step NAME, then the arguments of docker compose run.
run_step() {
    local code=0
    step=$guard-$1
    attend compose run --rm --no-deps --no-TTY --name "$step" "${@:2}" || code=$?
    step=
    return "$code"
}

# step_failed EXIT_CODE MESSAGE
step_failed() {
    fail "$1" "$2 (exit code $1); the database stays stopped" \
        "see the message above; remove the cause and run the same command again: it takes the restore up"
}

# Prints the label of the backup set that the plan has chosen.
planned_set() {
    local marker
    # shellcheck disable=SC2016 # the container's variable
    marker=$(docker exec "$guard" sh -c 'cat -- "$PGDATA.restore"')
    if [[ $marker =~ --set=([0-9A-Za-z_-]+) ]]; then printf '%s' "${BASH_REMATCH[1]}"; fi
}

# pgBackRest's log of a restore: a line per file would be too much, so how far it is every few seconds.
show_progress() {
    local line next=$((SECONDS + 3))
    trap '' HUP INT TERM # to the end of what pgBackRest says
    while IFS= read -r line; do
        if [[ $line != *' DETAIL: '* ]]; then
            printf '%s\n' "$line" >&2
        elif ((SECONDS >= next)) && [[ $line =~ ([0-9.]+%)\) ]]; then
            say "restored: ${BASH_REMATCH[1]}"
            next=$((SECONDS + 3))
        fi
    done
}

# Notes from where on the database's log is of this start, and of all further ones, by Docker's clock.
note_log() {
    local id
    log_since=()
    id=$(compose ps --all --quiet database)
    [[ -z $id ]] || log_since=(--since "$(docker inspect --format '{{.State.FinishedAt}}' "$id")")
}

# Follows PostgreSQL's log until it has left recovery. There is no time limit: that depends on how much WAL there is.
watch_recovery() {
    local id log line code status restarts segments=0 last='' next=$((SECONDS + 10))
    local -a refusal=()
    id=$(compose ps --all --quiet database)
    exec {log}< <(exec docker logs --follow "${log_since[@]}" "$id" 2>&1)
    follower=$!
    while :; do
        code=0
        IFS= read -r -t 0.5 line <&"$log" || code=$?
        ((code)) || note_line
        if ((code == 0 && SECONDS < next)); then continue; fi
        read -r status restarts < <(docker inspect --format '{{.State.Status}} {{.RestartCount}}' "$id")
        [[ $status == running && $restarts == 0 ]] || recovery_refused
        [[ $(timeout 10 docker exec "$id" psql -XAtqc 'SELECT pg_is_in_recovery()' 2>/dev/null) != f ]] || break
        ((code != 1)) || sleep 0.5 # no log to wait for
        if ((SECONDS >= next)); then
            require_guard
            say "still in recovery: $segments WAL segments replayed${last:+, the last one $last}"
            next=$((SECONDS + 10))
        fi
    done
    while IFS= read -r -t 0.5 line <&"$log"; do note_line; done
    exec {log}<&-
    kill "$follower" 2>/dev/null || true
    follower=
}

# Takes what matters from a line of PostgreSQL's log; refused clients are not what it is about.
note_line() {
    case $line in
        *'restored log file "'*) last=${line#*restored log file \"} last=${last%%\"*} segments=$((segments + 1)) ;;
        *'recovery stopping '*) reached="recovery stopping ${line#*recovery stopping }" ;;
        *'last completed transaction was at log time '*) last_commit=${line##*at log time } ;;
        *'FATAL:  the database system is '* | *'FATAL:  terminating '*) ;;
        *FATAL:* | *PANIC:* | *ERROR:* | *DETAIL:* | *HINT:*) refusal+=("$line") ;;
    esac
}

recovery_refused() {
    while IFS= read -r -t 0.5 line <&"$log"; do note_line; done
    say "PostgreSQL refused the recovery:"
    ((${#refusal[@]})) || refusal=("(its log gives no reason: ./control.sh logs database)")
    for line in "${refusal[@]:0:10}"; do say "    $line"; done
    attend quiet_compose stop database || true
    docker exec "$guard" /pgbackrest/restore.sh fail "$token" || true
    fail 1 "the restore failed in recovery; the database is stopped, and does not start on this" \
        "restore to another target, for example an earlier time, or: set ${set:-LABEL}; the repository is untouched"
}

# Prints the new backup's label. If the worker is just taking one, that has to end first.
take_backup() {
    local code
    while :; do
        code=0
        compose exec --no-TTY pgbackrest_backup /pgbackrest/backup.sh full 2>&1 | find_label || code=$?
        ((code == 3)) || return "$code"
        say "the backup worker is taking a backup: waiting for its end"
        sleep 2
    done
}

find_label() {
    local line
    while IFS= read -r line; do
        [[ $line != *' another backup is running: '* && $line != 'HINT: wait for it to end' ]] || continue
        printf '%s\n' "$line" >&2
        [[ ! $line =~ 'backup.sh: backup '([^ ]+)' is complete' ]] || printf '%s' "${BASH_REMATCH[1]}"
    done
}

# summarise SET LABEL [TARGET]
summarise() {
    local set=$1 label=$2 timeline aside laps_text
    shift 2
    timeline=$(compose exec --no-TTY database psql -XAtqc 'SELECT timeline_id FROM pg_control_checkpoint()' </dev/null)
    # shellcheck disable=SC2016 # the container's variable
    aside=$(docker exec "$guard" sh -c 'cd "$PGDATA.unarchived" 2>/dev/null && echo "$PWD:" *' || true)
    [[ -n $reached || $# -gt 0 ]] || reached="the end of the archived WAL"
    : "${reached:=not in the log since the last start of the database}"
    printf -v laps_text '%s, ' "${laps[@]}"
    printf '%-18s %s\n' \
        "restored to" "${*:-the end of the archived WAL}" \
        "reached" "$reached" \
        "last transaction" "${last_commit:-none in the WAL that was replayed}" \
        "timeline" "$timeline" \
        "backup set used" "${set:-not recorded}" \
        "new full backup" "$label" \
        "seconds" "${laps_text%, }"
    [[ -z $aside ]] || printf '%-18s %s\n' "WAL set aside" "$aside"
}
