#!/usr/bin/env bash
# The operators' one entry. What each command does is in control/: operate.sh and restore.sh for the deployed system, which
# need Docker only; setup.sh for drills and tests, which set up first what is missing, and say so; docker.sh, engine.sh and
# base_image.sh for Docker, where it has to be installed, and the image.
set -Eeuo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() {
    cat <<'HELP'
Usage: ./control.sh COMMAND

The deployed system (Docker Compose, settings in .env):
  up                    start it; at the first time build the image and generate the database's password
  down                  stop it and remove its containers; the volumes stay, with all data and backups
  down --volumes CONFIRMATION
                        delete the volumes, too: database, repository and all backups
  status                one screen: services, backups, what can be restored, archiving, space, last drill
  backup [full|diff]    take a backup now; without an argument full or differential as it is due
  check                 run all checks now
  info [ARG...]         pgbackrest info
  logs [ARG...]         logs of all services; arguments go to docker compose logs
  psql [ARG...]         psql as superuser
  restore TOKEN [TARGET]
                        replace the database by what the repository holds: at TARGET, or at the end of the archived WAL.
                        TARGET: time "2026-01-15 21:30:00+00" | lsn X | xid N | name P | set LABEL
                        TOKEN is the documented confirmation: all present data of the database is deleted.

Drills and development:
  setup                 make ready: a virtual environment, locked Python packages; on Debian and Ubuntu also
                        PostgreSQL and pgBackRest where they are missing; with Docker the stack's image; sweep what a
                        killed run left
  drill [ARG...]        prove a restore: seed, back up, make a mistake, restore, compare every row; the report is in
                        reports/latest. Arguments go to pytest: --iop-scenario=full, --iop-list, --iop-keep=failed, -n 2
  test [ARG...]         run this project's own tests; arguments go to pytest. Where no Docker engine answers, one is
                        installed and started for the run
  bench [NAME...]       run the benchmarks, without a name all of them, and write one table: reports/benchmarks.md

  -h, --help            this page

Exit codes: 0 done, healthy, passed; 1 failed, unhealthy, or could not find out; 2 blocked or wrong arguments; interrupted,
or a malformed scenario; 3 in use; 4 refused, a wrong option, or something the machine lacks; 69 a program is missing and
cannot be installed here.
HELP
}

say() { printf '%s\n' "control.sh: $*" >&2; }

# fail EXIT_CODE MESSAGE HINT
fail() {
    say "ERROR: $2"
    say "HINT: $3"
    exit "$1"
}

for part in docker setup operate restore; do
    # shellcheck source=/dev/null
    source "$top/control/$part.sh"
done

main() {
    local command=${1:---help}
    shift || true
    case $command in
        -h | --help | help) usage ;;
        up | down | status | backup | check | info | logs | psql | restore) "operate_$command" "$@" ;;
        setup | drill | test | bench) "command_$command" "$@" ;;
        *)
            say "unknown command '$command'"
            usage >&2
            exit 2
            ;;
    esac
}

main "$@"
