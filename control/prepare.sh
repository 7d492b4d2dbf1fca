# shellcheck shell=bash
# Sourced by operate.sh: settings as Compose sees them, and what must be there before a container can be started.
: "${top:?is set by control.sh}"

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

# Prints a restore's token. Whatever has to be written otherwise in .env than it is read, Compose and this script might
# read differently, and no argument would ever be right.
restore_token() {
    local LC_ALL=C token
    token=$(setting IOP_RESTORE_TOKEN I_UNDERSTAND_THIS_WILL_DELETE_DATABASE_DATA)
    [[ $token =~ ^[A-Za-z0-9_.:,+/@%-]+(\ [A-Za-z0-9_.:,+/@%-]+)*$ ]] ||
        fail 4 "IOP_RESTORE_TOKEN has characters that .env does not take as they are" \
            "use letters, digits, _ . : , + / @ % - and single spaces between them"
    printf '%s' "$token"
}

# A new password for the database's superuser, at the first time only. The directory keeps others out; the file must be
# readable for the containers' user, who is nobody here.
make_password() {
    local file directory message
    file=$(setting DATABASE_PASSWORD_FILE ./secrets/database_password)
    [[ $file == /* ]] || file=$top/${file#./}
    directory=${file%/*}
    # Another operator's, whom Docker does not need: its engine reads the file as root.
    [[ ! -d $directory || -x $directory ]] || return 0
    if [[ -e $file ]]; then
        [[ -s $file ]] || fail 4 "the database's password is empty: $file" "write one to it, or delete it for a generated one"
        return
    fi
    [[ $directory != "$top/secrets" || ! -d $directory ]] || chmod 0700 -- "$directory" 2>/dev/null || true
    [[ ! -d $directory || $(stat --dereference --format=%A -- "$directory") != *[xt] ]] ||
        fail 4 "the database's password, which its container must be able to read, would be readable for all: $file" \
            "chmod 700 '$directory', or set DATABASE_PASSWORD_FILE to a file in a directory of its own"
    message=$(write_password "$file" 2>&1) ||
        fail 4 "the database's password cannot be written: $file${message:+ (${message%%$'\n'*})}" \
            "as the owner of $top, or set DATABASE_PASSWORD_FILE"
    say "generated the database's password: $file"
    if docker volume inspect "$(project_name)_database_data" >/dev/null 2>&1; then
        say "HINT: a database that exists keeps its old password; to set the new one: ./control.sh psql -c '\\password'"
    fi
}

# write_password FILE: in a subshell, as it sets umask; with && throughout, as the caller's || switches "set -e" off.
write_password() (
    new=$1.$$
    umask 077
    mkdir -p -- "${1%/*}" &&
        head --bytes=32 /dev/urandom | base64 --wrap=0 | tr '+/' '-_' | tr -d '=' >"$new" &&
        chmod 0444 -- "$new" &&
        sync -- "$new" || exit
    # Unlike mv, ln never replaces one that another up has made meanwhile.
    ln -- "$new" "$1" || [[ -s $1 ]] || exit
    rm -f -- "$new"
)

# Compose mounts ./pgbackrest as it is: its files must be readable for the containers' user.
check_mounted() {
    local mode path
    local -a bad=()
    while read -r mode path; do
        mode=${mode: -3} # what others may do
        [[ $mode == r* && ($mode == *x || ! (-d $path || $path == *.sh)) ]] || bad+=("${path##*/}")
    done < <(stat --format='%A %n' -- "$top/pgbackrest" "$top"/pgbackrest/*)
    ((${#bad[@]} == 0)) ||
        fail 4 "in $top/pgbackrest the containers' user cannot read or run: ${bad[*]}" \
            "chmod -R a+rX '$top/pgbackrest'; chmod a+x '$top/pgbackrest'/*.sh"
}

# What must be there before a container can be started.
prepare() {
    ensure_compose
    ensure_engine
    restore_token >/dev/null
    check_mounted
    make_password
    ensure_image
}
