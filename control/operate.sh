# shellcheck shell=bash
# Sourced by control.sh: the commands for whoever operates the deployed system. They need Docker with Compose, nothing else.
: "${top:?is set by control.sh}"

# What status.py is told of a container, as JSON on one line.
container_facts='{"name":{{json .Name}},"restarts":{{.RestartCount}},"state":{{json .State}},'
container_facts+='"service":{{json (index .Config.Labels "com.docker.compose.service")}},'
container_facts+='"oneoff":{{json (index .Config.Labels "com.docker.compose.oneoff")}}}'

delete_confirmation=I_UNDERSTAND_THIS_WILL_DELETE_ALL_BACKUPS

# setting NAME DEFAULT: prints it as Compose would see it: from the environment, else from .env, else the default; empty
# is as good as not set.
setting() {
    local line pattern="^[[:space:]]*(export[[:space:]]+)?$1[[:space:]]*=[[:space:]]*(.*)$" value=
    if [[ -n ${!1+set} ]]; then
        value=${!1}
    elif [[ -r $top/.env ]]; then
        while IFS= read -r line || [[ -n $line ]]; do
            [[ ${line%$'\r'} =~ $pattern ]] && value=$(unquote "${BASH_REMATCH[2]}")
        done <"$top/.env"
    fi
    printf '%s' "${value:-$2}"
}

# A value of .env without its quotes; without quotes it ends where a comment begins.
unquote() {
    if [[ $1 =~ ^\'([^\']*)\' || $1 =~ ^\"([^\"]*)\" ]]; then
        printf '%s' "${BASH_REMATCH[1]}"
    elif [[ $1 =~ ^(.*[^[:space:]])[[:space:]]+#.*$ || $1 =~ ^(.*[^[:space:]])[[:space:]]*$ ]]; then
        printf '%s' "${BASH_REMATCH[1]}"
    fi
}

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

# A new password for the database's superuser, at the first time only. The directory keeps others out; the file must be
# readable for the containers' user, who is nobody here.
make_password() {
    local file new
    file=$(setting DATABASE_PASSWORD_FILE ./secrets/database_password)
    [[ $file == /* ]] || file=$top/${file#./}
    # Another operator's, whom Docker does not need: its engine reads the file as root.
    [[ ! -d ${file%/*} || -x ${file%/*} ]] || return 0
    if [[ -e $file ]]; then
        [[ -s $file ]] || fail 4 "the database's password is empty: $file" "write one to it, or delete it for a generated one"
        return
    fi
    new=$file.$$
    (
        umask 077
        mkdir -p -- "${file%/*}"
        [[ $file != "$top/secrets/"* ]] || chmod 0700 -- "$top/secrets"
        head --bytes=32 /dev/urandom | base64 --wrap=0 | tr '+/' '-_' | tr -d '=' >"$new"
        chmod 0444 -- "$new"
        sync -- "$new"
        # Unlike mv, ln never replaces one that another up has made meanwhile.
        ln -- "$new" "$file" 2>/dev/null || [[ -s $file ]]
        rm -f -- "$new"
    ) || fail 4 "the database's password cannot be written: $file" "see the message above; as its owner, or set DATABASE_PASSWORD_FILE"
    say "generated the database's password: $file"
    if docker volume inspect "$(project_name)_database_data" >/dev/null 2>&1; then
        say "HINT: a database that exists keeps its old password; to set the new one: ./control.sh psql -c '\\password'"
    fi
}

# Compose mounts ./pgbackrest as it is: its files must be readable for the containers' user.
check_mounted() {
    local mode path
    local -a bad=()
    while read -r mode path; do
        mode=${mode: -3} # what others may do
        [[ $mode == r* && ($mode == *x || ! (-d $path || $path == *.sh)) ]] || bad+=("${path##*/}")
    done < <(stat --format='%A %n' -- "$top/pgbackrest" "$top"/pgbackrest/*)
    ((${#bad[@]} == 0)) ||
        fail 4 "in $top/pgbackrest the containers' user cannot read or run: ${bad[*]}" "chmod -R go+rX '$top/pgbackrest'"
}

# What must be there before a container can be started.
prepare() {
    ensure_compose
    check_mounted
    make_password
    ensure_image
}

operate_up() {
    (($# == 0)) || fail 2 "up takes no arguments: $*" "settings go to .env: see .env.example"
    prepare
    local code=0 project
    project=$(project_name)
    if docker volume inspect "${project}_database_data" >/dev/null 2>&1 &&
        ! in_core "$project" /pgbackrest/database.sh --check; then
        # Where questions can be asked, and answered.
        quiet_compose up --detach --no-deps pgbackrest || true
        show_status || true
        fail 1 "a restore is unfinished: the database must not start on it" "finish it: see Restore above"
    fi
    say "starting; a new database takes some ten seconds"
    quiet_compose up --detach --wait || code=$?
    show_status || code=1
    ((code == 0)) || {
        show_trouble
        fail 1 "not all is healthy" "see above; ./control.sh logs SERVICE has more"
    }
}

# quiet_compose ARG…: docker compose; of its progress only what was reached, and whatever else it says.
quiet_compose() {
    local line
    compose --progress=plain "$@" 2>&1 </dev/null | while IFS= read -r line; do
        case $line in
            *"optional dependency"*) ;; # the core service's trouble is status's to tell
            *" "Waiting | *" "Starting | *" "Creating | *" "Created | *" "Running | *" "Stopping | *" "Recreate*) ;;
            *) printf '%s\n' "$line" >&2 ;;
        esac
    done
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
    # With the profile also what a restore has left.
    compose --profile restore --progress=plain down --remove-orphans "${volumes[@]}"
}

operate_status() {
    (($# == 0)) || fail 2 "status takes no arguments: $*" "./control.sh status"
    ensure_compose
    show_status
}

# in_core PROJECT PROGRAM ARG…: in the core service, or in a container like it: the volumes can be looked at all the same.
in_core() {
    local core program=$2
    core=$(docker ps --quiet --filter status=running --filter "label=com.docker.compose.project=$1" \
        --filter label=com.docker.compose.service=pgbackrest --filter label=com.docker.compose.oneoff=False)
    shift 2
    if [[ -n $core ]]; then
        docker exec --interactive "$core" "$program" "$@"
    else
        compose run --rm --no-deps --no-TTY --entrypoint "$program" pgbackrest "$@"
    fi
}

show_status() {
    local project colour=()
    project=$(project_name)
    [[ -t 1 && -z ${NO_COLOR:-} ]] && colour=(--colour)
    docker volume inspect "${project}_pg_backrest_repo" >/dev/null 2>&1 ||
        fail 1 "the system has not been started yet" "./control.sh up"
    {
        inspect_containers "$project" "$container_facts"
        printf '\n'
        cat -- "$top/reports/latest/record.json" 2>/dev/null || true
    } | in_core "$project" python3 -B /pgbackrest/status.py "${colour[@]}"
}

# require_running SERVICE
require_running() {
    ensure_compose
    [[ -n $(compose ps --quiet --status running "$1") ]] ||
        fail 1 "the service $1 is not running" "./control.sh up starts it; ./control.sh status says what is wrong"
}

operate_backup() {
    [[ $#:${1:-} =~ ^(0:|1:full|1:diff)$ ]] || fail 2 "wrong arguments: $*" "./control.sh backup, backup full or backup diff"
    require_running pgbackrest_backup
    compose exec --no-TTY pgbackrest_backup /pgbackrest/backup.sh "$@"
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
    compose logs "$@"
}

operate_psql() {
    require_running database
    local -a terminal=()
    [[ -t 0 && -t 1 ]] || terminal=(--no-TTY)
    compose exec "${terminal[@]}" database psql "$@"
}
