# shellcheck shell=bash
# Sourced by docker.sh: the base image. Pulled where a registry can be reached; else, as air-gapped machines need it, made
# with debootstrap from the Debian mirror that this machine is configured for.
: "${top:?is set by control.sh}"

# ensure_base_image IMAGE
ensure_base_image() {
    local image=$1 message
    has_image "$image" && return
    say "the base image $image is missing: pulling it"
    message=$(timeout 60 docker pull --quiet "$image" 2>&1) && return
    say "it cannot be pulled: ${message:-no answer within 60 s}"
    [[ $image =~ ^(docker\.io/)?(library/)?debian:([a-z]+)(-slim)?$ ]] ||
        fail 69 "the base image $image cannot be pulled, nor made here: that works for debian:SUITE[-slim] only" \
            "docker load it from a file, or set BASE_IMAGE in .env to one that can be reached"
    can_be_root || fail 69 "making the base image takes root, and there is no sudo" "as root, once: $top/control.sh setup"
    command -v apt-get >/dev/null ||
        fail 69 "the base image $image is made from this machine's Debian mirror, but it has no apt" \
            "on a machine that has it: docker save $image; here: docker load"
    [[ -x /usr/sbin/debootstrap ]] || install_packages "debootstrap, to make the base image" debootstrap debian-archive-keyring
    make_base_image "$image" "${BASH_REMATCH[3]}"
}

# debian_mirror LABEL: prints the URI of the first package source of that label, Debian or Debian-Security. It is asked of
# apt, which reads both formats of sources; labels are known only after a first apt-get update.
debian_mirror() {
    local uri
    # shellcheck disable=SC2016 # it is apt that fills this in
    uri=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' "Label: $1" | sed --quiet 1p)
    uri=${uri%/}
    # The cloud images of Debian have a list of mirrors in a file.
    [[ $uri != mirror+file:* ]] || uri=$(sed --quiet 's/^\(http[^[:space:]]*\).*/\1/p;T;q' "/${uri#mirror+file:/}")
    printf '%s' "${uri%/}"
}

# Prints what of this machine's configuration of apt is needed to reach its mirrors.
mirror_settings() {
    apt-config dump | grep --extended-regexp \
        '^Acquire::(Check-(Date|Valid-Until)|https?::(Proxy(::[^ ]+)?|Verify-(Peer|Host))) ' || true
}

# make_base_image IMAGE SUITE. In a subshell, whose trap takes away what was made, however it ends.
make_base_image() (
    image=$1 suite=$2
    [[ -n $(debian_mirror Debian) ]] || as_root apt-get -qq update || true
    mirror=$(debian_mirror Debian)
    [[ -n $mirror ]] || fail 69 "this machine has no Debian mirror configured to make the base image $image from" \
        "on a machine that has it: docker save $image; here: docker load; or set BASE_IMAGE in .env"
    say "making it with debootstrap from this machine's Debian mirror (once)"
    started=$SECONDS
    directory=$(mktemp --directory "${TMPDIR:-/var/tmp}/iop-base.XXXXXX")
    # On a signal, a subshell does not run its EXIT trap by itself.
    trap 'remove_tree "$directory"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    bootstrap "$suite" "$mirror" "$(debian_mirror Debian-Security)" "$directory/root" >"$directory/log" 2>&1 </dev/null || {
        tail --lines=20 "$directory/log" >&2
        fail 69 "debootstrap of $suite from $mirror failed" "see its messages above: has the mirror that suite?"
    }
    # Named only when all of it has arrived: the engine takes a stream that was cut off for a whole one.
    id=$(as_root tar --create --directory="$directory/root" . | docker import --change 'CMD ["bash"]' \
        --change "LABEL org.opencontainers.image.title=\"$image, made by debootstrap\"" -) ||
        fail 69 "the base image could not be handed to Docker" "see the message above: is there space?"
    docker tag "$id" "$image" || exit
    say "made in $((SECONDS - started)) s"
)

# bootstrap SUITE MIRROR SECURITY_MIRROR DIRECTORY
bootstrap() {
    local suite=$1 mirror=$2 security=$3 root=$4 proxy=''
    eval "$(apt-config shell proxy Acquire::http::Proxy)"
    as_root env ${proxy:+http_proxy="$proxy"} debootstrap --variant=minbase --force-check-gpg \
        --include="debian-archive-keyring$([[ $mirror != https:* ]] || printf ,ca-certificates)" \
        "$suite" "$root" "$mirror" || return
    if [[ $mirror == https:* && -d /usr/local/share/ca-certificates ]]; then
        as_root cp --recursive /usr/local/share/ca-certificates "$root/usr/local/share/"
        as_root chroot "$root" update-ca-certificates || return
    fi
    mirror_settings | as_root tee "$root/etc/apt/apt.conf.d/01mirror"
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$root/usr/sbin/policy-rc.d" # packages start no services
    as_root chmod 0755 "$root/usr/sbin/policy-rc.d"
    as_root rm --force "$root/etc/apt/sources.list"
    # With updates and security, where the mirrors have them for this suite.
    write_sources "$suite $suite-updates" "$mirror" "$suite-security" "$security" "$root"
    if ! in_root "$root" apt-get update --error-on=any; then
        write_sources "$suite" "$mirror" '' '' "$root"
        in_root "$root" apt-get update || return
    fi
    in_root "$root" apt-get --yes dist-upgrade || return
    as_root rm --recursive --force "$root/etc/resolv.conf" "$root/etc/hostname"
    as_root find "$root"/var/cache "$root"/var/lib/apt/lists "$root"/var/log "$root"/usr/share/man "$root"/usr/share/info \
        "$root"/usr/share/locale "$root"/usr/share/doc -xdev -type f ! -name copyright -delete
}

in_root() {
    local root=$1
    shift
    as_root env DEBIAN_FRONTEND=noninteractive LC_ALL=C chroot "$root" "$@"
}

# write_sources SUITES MIRROR SECURITY_SUITE SECURITY_MIRROR ROOT
write_sources() {
    local entry='Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n'
    # shellcheck disable=SC2059 # the format is ours
    {
        printf "$entry" "$2" "$1"
        [[ -z $4 ]] || printf "$entry" "$4" "$3"
    } | as_root tee "$5/etc/apt/sources.list.d/debian.sources"
}

# remove_tree DIRECTORY: with whatever is still mounted below it.
remove_tree() {
    local mounted
    while read -r mounted; do
        as_root umount --lazy "$mounted"
    done < <(awk -v below="$1/" 'index($2, below) == 1 { print $2 }' /proc/self/mounts | sort --reverse)
    as_root rm --recursive --force --one-file-system "$1"
}
