# shellcheck shell=bash
# Sourced by control.sh: Docker's engine, its Compose plugin and the stack's image, as the operators' commands need them:
# what is missing is named, never installed. engine.sh installs and starts an engine, for setup and test only;
# base_image.sh makes the image that the stack's image is built on.
: "${top:?is set by control.sh}"

compose_needed=2.20 # depends_on's "required"

for part in engine base_image; do
    # shellcheck source=/dev/null
    source "$top/control/$part.sh"
done

# Docker Compose on this deployment, from whatever directory.
compose() {
    docker compose --project-directory "$top" "$@"
}

can_be_root() {
    ((EUID == 0)) || command -v sudo >/dev/null
}

as_root() {
    if ((EUID == 0)); then "$@"; else sudo "$@"; fi
}

# at_least VERSION NEEDED
at_least() {
    printf '%s\n' "$2" "$1" | sort --check=quiet --version-sort
}

# Prints the Compose plugin's version, or nothing.
compose_version() {
    local version
    version=$(docker compose version --short 2>/dev/null) || return 0
    printf '%s' "${version#v}"
}

has_compose() {
    local version
    version=$(compose_version)
    [[ -n $version ]] && at_least "$version" "$compose_needed"
}

engine_answers() {
    timeout 20 docker version --format '{{.Server.Version}}' >/dev/null 2>&1
}

# The client and its Compose plugin. Whether an engine answers is asked by ensure_engine.
ensure_compose() {
    local version
    command -v docker >/dev/null || fail 69 "there is no docker program in PATH" \
        "install Docker with Compose $compose_needed or newer; on Debian and Ubuntu: ./control.sh test does it, or apt-get install docker.io"
    has_compose && return
    version=$(compose_version)
    fail 69 "Docker Compose $compose_needed or newer is needed; 'docker compose version' says: ${version:-no such plugin}" \
        "install the plugin; on Debian 13: apt-get install docker-compose; on Ubuntu: docker-compose-v2; else see docs.docker.com"
}

# Ends with the reason when no engine answers.
ensure_engine() {
    engine_answers && return
    local message
    message=$(timeout 20 docker version 2>&1 >/dev/null | tail --lines=1) || true
    case ${DOCKER_HOST:-}:${message,,} in
        *"permission denied"*)
            fail 69 "no access to the Docker engine: $message" \
                "as root: usermod --append --groups docker $(id --user --name); then log in anew"
            ;;
        ?*:*) fail 69 "no Docker engine answers at DOCKER_HOST=$DOCKER_HOST: $message" "unset DOCKER_HOST, or start that engine" ;;
        *) fail 69 "no Docker engine answers: ${message:-within 20 s}" "start it; with systemd: systemctl start docker" ;;
    esac
}

has_image() {
    docker image inspect "$1" >/dev/null 2>&1
}

# ensure_image [always]: the stack's image is there; with "always" it is also made of what image/ holds now.
# Two at once: the second waits for the first, and finds its image.
ensure_image() {
    local image base lock
    ensure_compose
    ensure_engine
    image=$(compose config --images pgbackrest) || fail 4 "compose.yaml or .env is not valid" "see Compose's message above"
    [[ ${1:-} != always ]] && has_image "$image" && return
    base=$(compose config pgbackrest | sed --quiet 's/^ *BASE_IMAGE: *"\?\([^"]*\)"\?$/\1/p')
    if [[ -z $base ]]; then # the compose.yaml of a site may have its image from a registry
        has_image "$image" || compose pull --quiet pgbackrest ||
            fail 69 "the image $image cannot be pulled" "see Docker's message above: is IOP_IMAGE right, is the registry reachable?"
        return
    fi
    exec {lock}<"$top/image/Dockerfile"
    flock "$lock"
    if [[ ${1:-} == always ]] || ! has_image "$image"; then
        ensure_base_image "$base" || exit
        build_image "$image"
    fi
    exec {lock}<&-
}

build_image() {
    local log started=$SECONDS had=
    has_image "$1" && had=yes
    [[ -n $had ]] || say "building the image $1"
    log=$(mktemp)
    if ! compose --progress=plain build pgbackrest >"$log" 2>&1 </dev/null; then
        tail --lines=30 "$log" >&2
        rm --force "$log"
        fail 69 "the image $1 could not be built" "see Docker's messages above: can a container reach the base image's package source?"
    fi
    rm --force "$log"
    [[ -n $had ]] || say "built in $((SECONDS - started)) s"
}
