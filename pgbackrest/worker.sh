#!/usr/bin/env bash
# worker.sh NAME SCRIPT [ARG…]: runs SCRIPT every PGBACKREST_FREQUENCY seconds (default 3600) until SIGTERM or SIGINT.
#
# A run is due PGBACKREST_FREQUENCY seconds after the start of the last one, also across restarts of the worker. On its
# start it is due at once if no run for this stanza is recorded, or if the last one failed or never ended. A check is due
# at every start: what was seen before says nothing of what is there now. Whoever removes the record makes a run due at
# once, which core.sh does when the repository has no backup. A failing run does not end the loop. A stop is answered
# within a second; a run in progress gets SIGTERM, and SIGKILL after IOP_STOP_TIMEOUT seconds (default 8: Docker allows a
# container 10). Exit codes: 0 stopped on request, 2 a wrong setting.
#
# $IOP_STATE_PATH/NAME.json (default /var/lib/iop-backup) says what the worker does since when, and how its last run
# ended. It is replaced as a whole, at every change and every IOP_HEARTBEAT seconds (default 10): an old heartbeat means
# that the worker is gone or hangs. health.py judges it.
set -Eeuo pipefail

fail() { # MESSAGE HINT
    printf 'ERROR: worker.sh: %s\nHINT: %s\n' "$1" "$2" >&2
    exit 2
}

seconds() { # NAME DEFAULT: prints the setting's value
    local value=${!1:-$2}
    [[ $value =~ ^[1-9][0-9]{0,8}$ ]] ||
        fail "$1 is '$value', not a number of seconds" "set $1 to a whole number from 1 to 999999999"
    printf '%s' "$value"
}

# Times are microseconds since 1970. The locale decides on the decimal separator of EPOCHREALTIME.
look_at_clock() { now=${EPOCHREALTIME//[!0-9]/}; }

utc() { # VARIABLE TIME: ISO 8601 with milliseconds
    TZ=UTC printf -v "$1" '%(%Y-%m-%dT%H:%M:%S)T.%03dZ' "$(($2 / 1000000))" "$(($2 / 1000 % 1000))"
}

log() { # MESSAGE
    local at
    look_at_clock
    utc at "$now"
    printf '%s worker %s: %s\n' "$at" "$name" "$1"
}

# Replaces the state file, as a whole. A state volume that is full or gone does not end the loop.
record() { # STATE: waiting, running or stopped
    local at text
    # Removed by somebody, unless it is the volume that fails: what was recorded does not hold any more.
    if [[ -n $written && ! -e $file ]]; then
        last=null removed=yes
    fi
    look_at_clock
    beat=$now
    utc at "$now"
    if [[ $1 != "$state" ]]; then state=$1 since=$at; fi
    printf -v text '{"version":1,"worker":"%s","stanza":"%s","pid":%d,"heartbeat":"%s","state":"%s","since":"%s",' \
        "$name" "$stanza" "$$" "$at" "$state" "$since"
    printf -v text '%s"frequency":%d,"runs":%d,"last":%s}' "$text" "$frequency" "$runs" "$last"
    if printf '%s\n' "$text" >"$file.new" && mv -f -- "$file.new" "$file"; then
        written=yes
    else
        written=
        log "cannot write $file: is the volume full or gone?" >&2
    fi
}

keep_heartbeat() {
    look_at_clock
    if ((now < beat || now - beat >= heartbeat * 1000000)); then record "$state"; fi
}

# Takes up the runs of an earlier worker. No other program writes the file, so the pattern follows record() and run()
# to the letter; whatever does not match counts as nothing recorded, which costs one run too many at worst.
recall() {
    local text='' pattern started
    pattern='"state":"([a-z]+)","since":"[^"]+","frequency":[0-9]+,"runs":([0-9]+),"last":'
    pattern+='(\{"started":"([^"]+)","finished":"[^"]+","exit_code":([0-9]+),"seconds":[0-9.]+\})\}$'
    if [[ -r $file ]]; then text=$(<"$file"); fi
    [[ $text == *"\"stanza\":\"$stanza\","* && $text =~ $pattern ]] || return 0
    runs=${BASH_REMATCH[2]} last=${BASH_REMATCH[3]} started=${BASH_REMATCH[4]}
    [[ $name != check && ${BASH_REMATCH[1]} != running && ${BASH_REMATCH[5]} == 0 ]] || return 0
    if started=$(date --date="$started" +%s); then
        due=$(((started + frequency) * 1000000))
    fi
}

# Sleeps without a child process that could be left behind: reads a pipe that only the signal trap writes to.
idle() { # SECONDS
    read -r -t "$1" -u "$wake" || true
}

signal_run() { # SIGNAL: to all processes of the run, or to the one that is about to lead them
    kill "-$1" -- "-$child" 2>/dev/null || kill "-$1" "$child" 2>/dev/null || true
}

stop_run() {
    local deadline
    log "stopping: SIGTERM to the run in progress"
    signal_run TERM
    deadline=$((now + stop_timeout * 1000000))
    while kill -0 "$child" 2>/dev/null && ((now < deadline)); do
        idle 0.05
        look_at_clock
    done
    if kill -0 "$child" 2>/dev/null; then log "no end within $stop_timeout s: SIGKILL" >&2; fi
    signal_run KILL # also to what the script has left behind
}

run() { # SCRIPT [ARG…]
    local started finished from to seconds code=0
    log "run $((runs + 1)) starts: $*"
    record running
    started=$now
    setsid -- "$@" {wake}>&- & # a session of its own, so that one signal reaches every process of the run
    child=$!
    while kill -0 "$child" 2>/dev/null; do
        if ((stopping)); then
            stop_run
            break
        fi
        keep_heartbeat
        idle 0.1
    done
    wait "$child" || code=$?
    look_at_clock
    finished=$now
    runs=$((runs + 1)) due=$((started + frequency * 1000000))
    utc from "$started"
    utc to "$finished"
    printf -v seconds '%d.%03d' "$(((finished - started) / 1000000))" "$(((finished - started) / 1000 % 1000))"
    last="{\"started\":\"$from\",\"finished\":\"$to\",\"exit_code\":$code,\"seconds\":$seconds}"
    record waiting
    log "run $runs ended: exit code $code after $seconds s"
}

wait_until_due() {
    local rest until_beat
    while ((!stopping)); do
        keep_heartbeat
        if [[ -n $removed ]]; then due=0 removed=; fi
        rest=$((due - now)) until_beat=$((beat + heartbeat * 1000000 - now))
        if ((rest <= 0)); then return; fi
        # A clock that was set back must not put the next run off by more than one period.
        if ((rest > frequency * 1000000)); then due=$((now + frequency * 1000000)); fi
        if ((rest > until_beat)); then rest=$until_beat; fi
        printf -v rest '%d.%06d' "$((rest / 1000000))" "$((rest % 1000000))"
        idle "$rest"
    done
}

(($# >= 2)) || fail "a name and a script are needed" "for example: worker.sh backup /pgbackrest/backup.sh"
name=$1
shift
[[ $name =~ ^[a-z][a-z0-9-]*$ ]] || fail "'$name' is no name for a worker" "use lower-case letters, digits and hyphens"
command -v -- "$1" >/dev/null || fail "'$1' is not there or not executable" "give the path of backup.sh or check.sh"
frequency=$(seconds PGBACKREST_FREQUENCY 3600)
heartbeat=$(seconds IOP_HEARTBEAT 10)
stop_timeout=$(seconds IOP_STOP_TIMEOUT 8)
unset PGBACKREST_FREQUENCY # pgBackRest takes every PGBACKREST_* variable for an option and warns of those it lacks
stanza=${PGBACKREST_STANZA:-iop}
directory=${IOP_STATE_PATH:-/var/lib/iop-backup}
file=$directory/$name.json
{ mkdir -p -- "$directory" && [[ -w $directory ]]; } ||
    fail "the state directory $directory is not writable for $(id -un)" "set IOP_STATE_PATH, or mount a volume there"

stopping=0 runs=0 last=null due=0 state='' since='' written='' removed=''
exec {wake}<> <(:)
trap 'stopping=1; printf "\n" >&"$wake"' TERM INT
recall
log "every $frequency s: $*"
record waiting
until wait_until_due && ((stopping)); do
    run "$@"
done
record stopped
log "stopped"
