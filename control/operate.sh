# shellcheck shell=bash
# Sourced by control.sh: the commands for whoever operates the deployed system. They need Docker with Compose, nothing else.
: "${top:?is set by control.sh}"

# What status.py is told of a container, as JSON on one line.
container_facts='{"name":{{json .Name}},"restarts":{{.RestartCount}},"state":{{json .State}},'
container_facts+='"service":{{json (index .Config.Labels "com.docker.compose.service")}},'
container_facts+='"oneoff":{{json (index .Config.Labels "com.docker.compose.oneoff")}}}'

delete_confirmation=I_UNDERSTAND_THIS_WILL_DELETE_ALL_BACKUPS

# shellcheck source=/dev/null
source "$top/control/prepare.sh"

# Prints the Compose project's name, which all containers and volumes carry as a label.
project_name() {
    local line
    while IFS= read -r line; do
        [[ $line != name:* ]] || printf '%s' "${line#name: }"
    done < <(compose config)
}

# inspect_containers PROJECT FORMAT: one line for each container, stopped ones and those of a restore included.
inspect_containers() {
    local -a ids
    mapfile -t ids < <(docker ps --all --quiet --filter "label=com.docker.compose.project=$1")
    # One that goes away in between is simply not listed.
    ((${#ids[@]} == 0)) || docker inspect --format "$2" "${ids[@]}" 2>/dev/null || true
}

operate_up() {
    (($# == 0)) || fail 2 "up takes no arguments: $*" "settings go to .env: see .env.example"
    prepare
    local code=0 project began line
    project=$(project_name)
    line=$(running_restore "$project")
    [[ -z $line ]] || fail 3 "a restore is running: container $line" "wait for its end; ./control.sh status shows it"
    if docker volume inspect "${project}_database_data" >/dev/null 2>&1 &&
        ! in_core "$project" /pgbackrest/database.sh --check; then
        # Where questions can be asked, and answered.
        quiet_compose up --detach --no-deps pgbackrest || true
        show_status || true
        fail 1 "a restore is unfinished: the database must not start on it" "finish it: see Restore above"
    fi
    say "starting; a new database takes some ten seconds"
    began=$(date --utc +%FT%TZ)
    quiet_compose up --detach --wait || code=$?
    ((code)) || settle "$project" || code=1
    show_status --present || code=1
    while IFS= read -r line; do # of a start just now
        [[ $line != *WARNING:* ]] || say "${line#core.sh: }"
    done < <(docker logs --since "$began" "$(service_container "$project" pgbackrest)" 2>/dev/null)
    ((code == 0)) || {
        show_trouble
        [[ -z $compose_error ]] || say "Docker Compose: $compose_error"
        fail 1 "not all is healthy" "see above; ./control.sh logs SERVICE has more"
    }
}

# Prints the name of a container in which a restore works now, or nothing.
running_restore() { # PROJECT
    local service name
    while read -r service name; do
        case $service in database_wipe | pgbackrest_restore) printf '%s' "$name" && return ;; esac
    done < <(docker ps --format '{{.Label "com.docker.compose.service"}} {{.Names}}' \
        --filter "label=com.docker.compose.project=$1")
}

# service_container PROJECT SERVICE: prints the id of the container that runs the service, or nothing.
service_container() {
    docker ps --quiet --filter status=running --filter "label=com.docker.compose.project=$1" \
        --filter "label=com.docker.compose.service=$2" --filter label=com.docker.compose.oneoff=False
}

# settle PROJECT: what was seen before the start, or before a backup, says nothing of what is there now. Waits for the
# first backup, for 30 s at most, and has all checked unless the check worker has done that since.
settle() {
    local backup check moment code=0 state='' since='' deadline=$((SECONDS + 30)) LC_ALL=C
    backup=$(service_container "$1" pgbackrest_backup)
    check=$(service_container "$1" pgbackrest_check)
    [[ -n $backup && -n $check ]] || return 0
    while state=$(docker exec "$backup" cat /var/lib/iop-backup/backup.json 2>/dev/null) || true; do
        # Until a run has ended; one that failed is tried again later only.
        [[ -z $state || $state == *'"last":null'* || $state =~ \"state\":\"running\".*\"exit_code\":[1-9] ]] || break
        ((SECONDS < deadline)) || break
        sleep 0.5
    done
    while IFS= read -r moment; do # to the millisecond, as the workers have it
        [[ ${moment:0:23} < $since ]] || since=${moment:0:23}
    done < <(
        inspect_containers "$1" '{{.State.StartedAt}}'
        [[ ! $state =~ \"finished\":\"([^\"]+)\" ]] || printf '%s\n' "${BASH_REMATCH[1]}"
    )
    state=$(docker exec "$check" cat /var/lib/iop-backup/check-status.json 2>/dev/null) || true
    [[ ! $state =~ \"started\":\ \"([^\"]+)\" || ${BASH_REMATCH[1]:0:23} < $since ]] || return 0
    say "checking"
    timeout 150 docker exec "$check" /pgbackrest/check.sh >/dev/null 2>&1 || code=$?
    ((code <= 3)) || say "WARNING: the check has not come to its end (exit code $code): what follows is not of now"
    return "$((code > 3))" # what it has found, status shows
}

compose_error= # the last one that quiet_compose has seen

# quiet_compose ARG…: docker compose; of its progress only what was reached, once, and whatever else it says.
quiet_compose() {
    local line said=$'\n'
    compose_error=
    while IFS= read -r line; do
        case $line in
            *"optional dependency"*) ;; # the core service's trouble is status's to tell
            *" "Waiting | *" "Starting | *" "Creating | *" "Created | *" "Running | *" "Stopping | *" "Recreate*) ;;
            *)
                [[ $said != *$'\n'"$line"$'\n'* ]] || continue
                said+=$line$'\n'
                printf '%s\n' "$line" >&2
                [[ ${line,,} != *error* && $line != *unhealthy* ]] || compose_error=$line
                ;;
        esac
    done < <(compose --progress=plain "$@" 2>&1 </dev/null)
    wait $!
}

# The last lines of whichever service does not run or is not healthy.
show_trouble() {
    local name state line
    while read -r name state; do
        [[ $state != running/healthy ]] || continue
        say "last log lines of ${name#/} ($state):"
        while IFS= read -r line; do
            say "    $line"
        done < <(docker logs --tail 8 "${name#/}" 2>&1)
    done < <(inspect_containers "$(project_name)" \
        '{{.Name}} {{.State.Status}}/{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}')
}

operate_down() {
    local -a volumes=()
    case $#:${1:-} in
        0:) ;;
        2:--volumes)
            # Not [[ ]], which BASHOPTS=nocasematch in the environment would make blind to upper and lower case.
            [ "$2" = "$delete_confirmation" ] ||
                fail 2 "the confirmation is wrong; nothing was touched" "this deletes the database and every backup: see ./control.sh --help"
            volumes=(--volumes)
            ;;
        1:--volumes) fail 2 "the confirmation is missing; nothing was touched" "this deletes the database and every backup: ./control.sh down --volumes $delete_confirmation" ;;
        *) fail 2 "wrong arguments: $*; nothing was touched" "./control.sh down, or down --volumes CONFIRMATION" ;;
    esac
    ensure_compose
    ensure_engine
    # With the profile also what a restore has left.
    compose --profile restore --progress=plain down --remove-orphans "${volumes[@]}"
}

operate_status() {
    (($# == 0)) || fail 2 "status takes no arguments: $*" "./control.sh status"
    ensure_compose
    ensure_engine
    show_status
}

# in_core PROJECT PROGRAM ARG…: in the core service, or in a container like it: the volumes can be looked at all the same.
in_core() {
    local core program=$2
    core=$(service_container "$1" pgbackrest)
    shift 2
    if [[ -n $core ]]; then
        docker exec --interactive "$core" "$program" "$@"
    else
        compose run --rm --no-deps --no-TTY --entrypoint "$program" pgbackrest "$@"
    fi
}

show_status() { # [--present]
    local project sum
    project=$(project_name)
    sum=$(sha256sum <"$top/compose.yaml")
    set -- "$@" "--compose=${sum%% *}"
    if [[ -t 1 && -z ${NO_COLOR:-} ]]; then set -- "$@" --colour; fi
    docker volume inspect "${project}_pg_backrest_repo" >/dev/null 2>&1 ||
        fail 1 "the system has not been started yet" "./control.sh up"
    {
        inspect_containers "$project" "$container_facts"
        printf '\n'
        cat -- "$top/reports/latest/record.json" 2>/dev/null || true
    } | in_core "$project" python3 -B /pgbackrest/status.py "$@"
}

# require_running SERVICE
require_running() {
    ensure_compose
    ensure_engine
    [[ -n $(compose ps --quiet --status running "$1") ]] ||
        fail 1 "the service $1 is not running" "./control.sh up starts it; ./control.sh status says what is wrong"
}

operate_backup() {
    [[ $#:${1:-} =~ ^(0:|1:full|1:diff)$ ]] || fail 2 "wrong arguments: $*" "./control.sh backup, backup full or backup diff"
    require_running pgbackrest_backup
    compose exec --no-TTY pgbackrest_backup /pgbackrest/backup.sh "$@"
    [[ ${1:-} != full ]] || finish_restore
}

# A restore that got to its end, but not to the full backup after it, has that now.
finish_restore() {
    local project token
    project=$(project_name)
    # shellcheck disable=SC2016 # the container's variables
    [[ -z $(running_restore "$project") ]] && in_core "$project" bash -c \
        '[[ ! -e $PGDATA/recovery.signal && -e $PGDATA.restore && $(<"$PGDATA.restore") =~ \"stage\":\ *\"restored\" ]]' ||
        return 0
    token=$(restore_token)
    in_core "$project" env "IOP_RESTORE_TOKEN=$token" /pgbackrest/restore.sh finish "$token"
    say "the restore is finished with that"
}

operate_check() {
    (($# == 0)) || fail 2 "check takes no arguments: $*" "./control.sh check"
    require_running pgbackrest_check
    compose exec --no-TTY pgbackrest_check /pgbackrest/check.sh
}

operate_info() {
    require_running pgbackrest
    compose exec --no-TTY pgbackrest pgbackrest info "$@"
}

operate_logs() {
    ensure_compose
    ensure_engine
    compose logs "$@"
}

operate_psql() {
    require_running database
    local -a terminal=()
    [[ -t 0 && -t 1 ]] || terminal=(--no-TTY)
    compose exec "${terminal[@]}" database psql "$@"
}
