# shellcheck shell=bash
# Sourced by control.sh: what the host needs, and the commands for whoever proves and develops: drill, test, bench.
: "${top:?is set by control.sh}"

venv=$top/.venv
python=$venv/bin/python

# Installs Debian packages, saying so. $1: why; the rest: packages.
install_packages() {
    local why=$1
    shift
    command -v apt-get >/dev/null ||
        fail 69 "missing: $why" "install PostgreSQL 14-18 (server and contrib), pgBackRest 2.45 or newer and Python 3.10 or newer; or use Docker: run this in a container of debian:trixie-slim"
    can_be_root || fail 69 "missing: $why; no sudo to install it with" "as root: apt-get install $*"
    say "missing: $why; installing with apt-get: $*"
    local -a apt=(as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=600)
    local log
    log=$(mktemp)
    if ! { "${apt[@]}" update && "${apt[@]}" install --no-install-recommends -y "$@"; } >"$log" 2>&1 </dev/null; then
        tail -n 20 "$log" >&2
        rm -f "$log"
        fail 69 "apt-get could not install: $*" "see its messages above"
    fi
    rm -f "$log"
}

has_postgresql() {
    local bin
    for bin in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /usr/local/pgsql/bin; do
        [[ -x $bin/initdb && -x $bin/postgres ]] && return
    done
    command -v initdb >/dev/null && command -v postgres >/dev/null
}

# A server that nobody asked for would be made and started with the package; the drills make their own.
install_postgresql() {
    local no_server=/etc/postgresql-common/createcluster.d/iop.conf
    if [[ -d /etc/apt ]] && can_be_root; then
        as_root mkdir -p "${no_server%/*}"
        as_root tee "$no_server" <<<'create_main_cluster = false' >/dev/null
    fi
    install_packages "PostgreSQL's server" postgresql
    as_root rm -f "$no_server"
}

setup_programs() {
    has_postgresql || install_postgresql
    command -v pgbackrest >/dev/null || install_packages pgBackRest pgbackrest faketime
}

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3 /usr/bin/python3; do
        [[ -n $candidate ]] && "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null &&
            printf '%s' "$candidate" && return
    done
    return 1
}

setup_python() {
    local stamp
    stamp=$(cat "$top/requirements.lock" "$top/pyproject.toml" "$top/src/pytest_iopbackup/__init__.py" | sha256sum)
    if [[ -x $python && $(cat "$venv/stamp" 2>/dev/null) == "$stamp $top" ]]; then
        return
    fi
    local base
    base=$(find_python) || { install_packages "Python 3.10 or newer with venv" python3 python3-venv; base=$(find_python); } ||
        fail 69 "no Python 3.10 or newer" "install one, or name it: PYTHON=/path/to/python3 ./control.sh setup"
    say "installing the locked Python packages into .venv (once)"
    # Made anew only where it does not run: another run may be using it.
    "$python" -c '' 2>/dev/null || "$base" -m venv --clear "$venv"
    "$python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$top/requirements.lock"
    "$python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable "$top"
    printf '%s' "$stamp $top" >"$venv/stamp"
}

# setup_all STEP...: two at once in one checkout: the second waits for the first.
setup_all() {
    local step lock
    exec {lock}>"$top/.setup.lock"
    flock "$lock"
    for step; do
        "$step"
    done
    exec {lock}>&-
    "$python" -m pytest_iopbackup sweep
}

command_setup() {
    setup_all setup_programs setup_python
    if command -v docker >/dev/null && engine_answers; then
        install_compose
        ensure_image
    else
        say "no Docker engine answers: stacks of kind local only"
    fi
}

# Prints the kind of stack that arguments of pytest ask for, if any.
stack_kind() {
    local argument before='' kind=''
    for argument; do
        case $before:$argument in
            *:--iop-stack=*) kind=${argument#*=} ;;
            --iop-stack:*) kind=$argument ;;
        esac
        before=$argument
    done
    printf '%s' "$kind"
}

# A kind of stack sets up what it needs, not what the other one does.
command_drill() {
    if [[ $(stack_kind "$@") == compose ]]; then
        setup_all setup_python
        ensure_image
    else
        setup_all setup_programs setup_python
    fi
    local argument scenario=--iop-scenario=pitr
    for argument; do
        [[ $argument == --iop-scenario* || $argument == --iop-list ]] && scenario=
    done
    # From where the caller is, so that relative paths mean what they say; reports go to the checkout all the same.
    exec "$python" -m pytest --rootdir="$top" --config-file="$top/pyproject.toml" ${scenario:+"$scenario"} "$@"
}

# The tests run both kinds of stacks, and so need an engine.
command_test() {
    setup_all setup_programs setup_python
    command -v shellcheck >/dev/null || install_packages "shellcheck, for the tests" shellcheck
    command -v faketime >/dev/null || install_packages "libfaketime, for the tests" faketime
    install_docker
    provide_engine
    ensure_image always
    cd "$top" || return
    # Most of them wait for servers most of the time. A file's tests share what they have started, so they stay together.
    # The order of files is tests/conftest.py's, not by their number of tests.
    local -a side_by_side=(-n 2 --dist=loadfile --no-loadscope-reorder)
    [[ ! " $*" =~ \ (-n|--numprocesses|--dist|--pdb) ]] || side_by_side=()
    with_engine "$python" -m pytest "${side_by_side[@]}" "$@"
}

command_bench() {
    setup_all setup_programs setup_python
    "$python" "$top/benchmarks/run_all.py" "$@"
}
