# shellcheck shell=bash
# Sourced by docker.sh: a Docker engine where there is none. Only setup and test use this; the operators' commands never
# install or start anything.
: "${compose_needed:?is set by docker.sh}"

engine= # directory of the engine that this process has started
engine_process=

# Docker and its Compose plugin, where one of them is missing.
install_docker() {
    PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin # dockerd and iptables, for an ordinary user
    if ! command -v docker >/dev/null || { ! engine_answers && ! command -v dockerd >/dev/null; }; then
        local -a packages=(docker.io iproute2)
        # Debian 13 has the client in a package of its own.
        [[ -z $(candidate docker-cli) ]] || packages+=(docker-cli)
        install_packages "Docker, for the tests" "${packages[@]}"
    fi
    install_compose
}

# The Compose plugin, where it is missing or too old.
install_compose() {
    has_compose && return
    local package version
    for package in docker-compose-v2 docker-compose; do # Ubuntu's name, Debian's
        version=$(candidate "$package")
        if [[ -n $version ]] && at_least "$version" "$compose_needed"; then
            install_packages "Docker's Compose plugin" "$package"
            has_compose && return
        fi
    done
    borrow_compose
    ensure_compose
}

# candidate PACKAGE: prints the version that apt would install, or nothing.
candidate() {
    command -v apt-cache >/dev/null || return 0
    # Where no lists were fetched yet, nothing is known.
    [[ -n $(apt-cache policy docker.io) ]] || as_root apt-get -qq update >/dev/null 2>&1 || true
    apt-cache policy "$1" | sed --quiet 's/^ *Candidate: \([0-9].*\)/\1/p'
}

# Debian 12 has Compose 1 only; the plugin of Debian 13 is one file that runs there. It is taken from the same mirror, with
# lists of its own, so that this machine's packages and lists stay as they are.
borrow_compose() {
    local mirror directory plugin=usr/libexec/docker/cli-plugins/docker-compose
    mirror=$(debian_mirror Debian)
    [[ -n $mirror ]] && can_be_root || return 0
    say "missing: Docker's Compose plugin; taking that of Debian 13, into /usr/local/lib/docker/cli-plugins"
    directory=$(mktemp --directory)
    if ! borrow "$mirror" "$directory" >"$directory/log" 2>&1 </dev/null || [[ ! -x $directory/files/$plugin ]]; then
        tail --lines=20 "$directory/log" >&2
    else
        as_root install -D --mode=0755 --target-directory=/usr/local/lib/docker/cli-plugins "$directory/files/$plugin"
    fi
    rm --recursive --force "$directory"
}

# borrow MIRROR DIRECTORY: downloads Debian 13's docker-compose and unpacks it below DIRECTORY/files.
borrow() (
    cd "$2" || return
    mkdir --parents lists/partial cache/archives/partial parts
    printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s trixie main\n' "$1" >sources.list
    own=(
        -o Dir::Etc::SourceList="$2/sources.list" -o Dir::Etc::SourceParts="$2/parts" -o Dir::State::Lists="$2/lists"
        -o Dir::Cache="$2/cache" -o APT::Sandbox::User=
    )
    apt-get "${own[@]}" -q update && apt-get "${own[@]}" -q download docker-compose &&
        dpkg-deb --extract docker-compose_*.deb files
)

# An engine answers, or one is started that ends with this process. A service of the machine that does not run was stopped
# by someone, and stays so; an engine that runs but does not answer us is not fought for the machine's network.
provide_engine() {
    local running
    engine_answers && return
    [[ -z ${DOCKER_HOST:-} ]] || ensure_engine # says why it does not answer
    can_be_root || fail 69 "no Docker engine answers, and to start one takes root" "start Docker, or run this as root"
    sweep_engines
    running=$(find_engine)
    [[ -z $running ]] || fail 69 "a Docker engine runs here (process $running), but it does not answer at Docker's default socket" \
        "set DOCKER_HOST to its socket, or wait for the end of the run that started it"
    start_engine
}

# Prints the process of an engine that runs on this machine, if any.
find_engine() {
    local comm
    for comm in /proc/[0-9]*/comm; do
        if [[ $(cat "$comm" 2>/dev/null) == dockerd ]]; then
            basename "${comm%/comm}"
            return
        fi
    done
}

start_engine() {
    local deadline=$((SECONDS + 60)) driver
    local -a sudo=() # not as_root: dockerd has to be this process's own child, to be told of its end
    ((EUID == 0)) || sudo=(sudo)
    engine=$(mktemp --directory "${TMPDIR:-/var/tmp}/iop-engine.XXXXXX")
    chmod 711 "$engine" # whoever is in the group may reach the socket
    say "no Docker engine answers: starting one for this run, in $engine"
    trap stop_engine EXIT
    exec {engine_lock}>"$engine/lock" # says that the directory is in use; dockerd inherits it
    flock "$engine_lock"
    printf '%s' "$BASHPID" >"$engine/owner"
    ip link show docker0 >/dev/null 2>&1 || as_root iptables -S FORWARD 2>/dev/null | sed 1q >"$engine/forward-policy"
    # Its mounts are in a namespace of their own and so vanish with it; its session is its own, so that Ctrl-C reaches the
    # tests and not the engine that they still need; and it ends even when this process is killed.
    "${sudo[@]}" unshare --mount --propagation slave setsid setpriv --pdeathsig TERM dockerd --host "unix://$engine/docker.sock" \
        --group "$(id --group)" --data-root "$engine/data" --exec-root "$engine/run" --pidfile "$engine/dockerd.pid" \
        --containerd-namespace "${engine##*/}" --containerd-plugins-namespace "${engine##*/}-plugins" \
        >"$engine/log" 2>&1 </dev/null &
    engine_process=$!
    export DOCKER_HOST=unix://$engine/docker.sock
    until engine_answers; do
        if ((SECONDS > deadline)) || [[ ! -d /proc/$engine_process ]]; then
            grep --invert-match level=info "$engine/log" | tail --lines=20 >&2 || true
            fail 69 "the Docker engine did not start" "see its log above; or start Docker yourself"
        fi
        sleep 0.2
    done
    driver=$(docker info --format '{{.Driver}}')
    [[ $driver != vfs ]] ||
        say "WARNING: the file system of ${engine%/*} allows no overlay: images are copied, which is slow; set TMPDIR to another"
}

# Ends the engine with all that it runs; also one that has not come up.
stop_engine() {
    set +e               # whatever fails, the rest is to go
    trap '' INT TERM HUP # as it is when someone is in a hurry
    local deadline=$((SECONDS + 30))
    if engine_answers; then
        docker ps --all --quiet | xargs --no-run-if-empty docker rm --force --volumes
        docker network prune --force # bridges outlive their engine
    fi >/dev/null 2>&1
    # Once only: the third signal would make it leave everything as it is.
    as_root kill -TERM "$(cat "$engine/dockerd.pid" 2>/dev/null || printf %s "$engine_process")" 2>/dev/null
    while [[ -d /proc/$engine_process ]] && ((SECONDS < deadline)); do
        sleep 0.1
    done
    [[ ! -d /proc/$engine_process ]] || as_root kill -KILL "$engine_process"
    [[ ! -s $engine/forward-policy ]] || forget_network "$(cat "$engine/forward-policy")"
    remove_tree "$engine"
}

# forget_network POLICY: takes away what an engine leaves in the machine's network when it ends: its bridges, its
# chains, the rules that lead there, and a policy for forwarding that would cut off others.
forget_network() (
    set +e
    bridges='docker0\|br-[0-9a-f]\{12\}'
    exec 2>/dev/null # not every machine has every table
    ip -oneline link | sed --quiet "s/^[0-9]*: \\($bridges\\):.*/\\1/p" | while read -r bridge; do
        as_root ip link delete "$bridge"
    done
    for program in iptables ip6tables; do
        for table in raw nat filter; do
            as_root "$program" -t "$table" -S | sed --quiet "/DOCKER\\|$bridges/s/^-A/-D/p" | while read -ra rule; do
                as_root "$program" -t "$table" "${rule[@]}"
            done
            for chain in $(as_root "$program" -t "$table" -S | sed --quiet 's/^-N \(DOCKER\)/\1/p'); do
                as_root "$program" -t "$table" -X "$chain"
            done
        done
    done
    # shellcheck disable=SC2086 # -P FORWARD ACCEPT, as iptables itself has written it
    as_root iptables $1
    true
)

# What killed runs left. Their engines end by themselves, which may take a moment, and hold the lock until then.
sweep_engines() {
    local left
    for left in "${TMPDIR:-/var/tmp}"/iop-engine.*; do
        if [[ -O $left && ! -L $left && ! -d /proc/$(cat "$left/owner" 2>/dev/null) ]] && flock --timeout 40 "$left/lock" true; then
            [[ ! -s $left/forward-policy || -n $(find_engine) ]] || forget_network "$(cat "$left/forward-policy")"
            remove_tree "$left"
        fi
    done
}

# with_engine PROGRAM...: runs it in place of this process, or, where an engine is to be ended after it, as a child that gets
# the signals that this process gets: Ctrl-C from the terminal, SIGTERM from here.
with_engine() {
    [[ -n $engine ]] || exec "$@"
    local child status=0 code heard=1
    env --default-signal=INT,QUIT "$@" <&0 {engine_lock}>&- &
    child=$!
    trap 'heard=1' INT
    trap 'heard=1; kill -TERM "$child" 2>/dev/null || true' TERM
    while [[ $heard ]]; do # a signal ends the wait, but not the child
        heard='' code=0
        wait "$child" 2>/dev/null || code=$?
        ((code == 127 && status)) || status=$code # 127: it had ended before, and was waited for
    done
    trap - INT TERM
    exit "$status"
}
