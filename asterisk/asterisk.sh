#!/usr/bin/env bash
# A real Asterisk in a container, for the demo and the test ring.
#
#   asterisk.sh up            engine + image + container, until Asterisk takes calls and ARI answers
#   asterisk.sh down          stop and remove the container
#   asterisk.sh status        engine, image, container, calls; exit 0 only if Asterisk is running
#   asterisk.sh cli [TEXT]    Asterisk's command line, or one command: cli 'core show channels'
#   asterisk.sh logs [ARGS]   the log of Asterisk; arguments as of `docker logs` (-f, --since 1m)
#   asterisk.sh engine        make sure that a Docker engine answers; exit 3 if none can be had
#   asterisk.sh engine-stop   stop the engine, only if this script started it
#   asterisk.sh image         build the image, if it is missing or its inputs changed
#
# One line a step, with the seconds it took; details go to build/asterisk-*.log and are shown when a step fails.
# Exit: 0 done; 1 failed; 2 wrong usage; 3 no Docker engine here, and none can be installed: take a simulated caller instead.
# ASTERISK_NETWORK=bridged takes compose.bridged.yaml (where Docker has no host networking).
set -euo pipefail
export LC_ALL=C # digits, decimal points and messages that do not depend on the user's language

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
build=$(dirname "$here")/build
name=realtime-bridge-asterisk # of the image and of the container
base=debian:sid-slim
network=${ASTERISK_NETWORK:-host}
pid_file=$build/asterisk-dockerd.pid # present only while an engine runs that this script started
engine_log=$build/asterisk-dockerd.log

# --- saying what happens ---------------------------------------------------------------------------------------------

say() { printf 'asterisk: %s\n' "$*" >&2; }
now_us() { local t=${EPOCHREALTIME:-$(date +%s).000000}; echo "${t/./}"; }

# step TEXT LOG COMMAND...: one line with the seconds; output to LOG, whose end is shown on failure.
step() {
    local text=$1 log=$build/asterisk-$2.log began status=0 took
    shift 2
    began=$(now_us)
    "$@" >"$log" 2>&1 </dev/null || status=$?
    took=$((($(now_us) - began) / 10000))
    if ((status)); then
        printf 'asterisk: %s: FAILED (%d.%02d s), end of %s:\n' "$text" $((took / 100)) $((took % 100)) "$log" >&2
        tail -n 25 "$log" | sed 's/^/    /' >&2
        return "$status"
    fi
    printf 'asterisk: %s (%d.%02d s)\n' "$text" $((took / 100)) $((took % 100)) >&2
}

# within SECONDS COMMAND...: bounded where coreutils is installed (a Mac may lack it).
within() {
    local seconds=$1
    shift
    if command -v timeout >/dev/null; then timeout "$seconds" "$@"; else "$@"; fi
}

# until_true SECONDS COMMAND...: try ten times a second.
until_true() {
    local deadline=$(($(now_us) + $1 * 1000000))
    shift
    until "$@" >/dev/null 2>&1; do
        (($(now_us) < deadline)) || return 1
        sleep 0.1
    done
}

# --- engine ----------------------------------------------------------------------------------------------------------

# A docker client may be there with no engine behind it, so ask the engine itself.
engine_answers() { within 10 docker info >/dev/null 2>&1; }

compose() {
    local file=$here/compose.yaml
    [[ $network == host ]] || file=$here/compose.bridged.yaml
    export ASTERISK_USER ASTERISK_IDENTITY
    ASTERISK_USER=$(id -u):$(id -g)
    ASTERISK_IDENTITY=$(identity)
    if docker compose version >/dev/null 2>&1; then
        docker compose -p realtime-bridge -f "$file" "$@"
    else
        docker-compose -p realtime-bridge -f "$file" "$@" # the older, separate program: Debian 12 has 1.29
    fi
}

have_compose() { docker compose version >/dev/null 2>&1 || command -v docker-compose >/dev/null; }

no_engine() {
    say "no Docker engine: $1"
    exit 3
}

install_packages() {
    export DEBIAN_FRONTEND=noninteractive
    apt-get install -y --no-install-recommends "$@" || { apt-get update && apt-get install -y --no-install-recommends "$@"; }
}

# Returns once the engine answers; 1 as soon as the process is gone, or after 60 s.
start_dockerd() {
    # setsid: the engine outlives this script and the terminal. 9>&-: and does not hold the lock of `up`.
    setsid dockerd "$@" >"$engine_log" 2>&1 </dev/null 9>&- &
    local pid=$! deadline=$(($(now_us) + 60000000))
    echo "$pid" >"$pid_file"
    until engine_answers; do
        if ! kill -0 "$pid" 2>/dev/null || (($(now_us) > deadline)); then
            kill "$pid" 2>/dev/null || true
            rm -f "$pid_file"
            tail -n 20 "$engine_log"
            return 1
        fi
        sleep 0.2
    done
}

start_engine() {
    if [[ -d /run/systemd/system ]]; then
        systemctl start docker && until_true 60 engine_answers
    elif ! start_dockerd; then
        # Some containers and small virtual machines forbid changing packet filters. Host networking needs none.
        grep -qi iptables "$engine_log" || return 1
        start_dockerd --iptables=false --ip6tables=false --bridge=none
    fi
}

engine() {
    mkdir -p "$build"
    if ! engine_answers; then
        [[ $(uname -s) == Linux ]] || no_engine "start Docker Desktop (or another engine) and try again"
        ((EUID == 0)) || no_engine "it does not answer (or does not let $(id -un) in), and only root could start one here"
        [[ -e /etc/debian_version ]] || no_engine "install one with this system's own package manager"
    fi
    local missing=()
    command -v docker >/dev/null && { engine_answers || command -v dockerd >/dev/null; } || missing+=(docker.io)
    have_compose || missing+=(docker-compose)
    if ! engine_answers && ! command -v iptables >/dev/null; then missing+=(iptables); fi
    if ((${#missing[@]})); then
        if ((EUID)) || [[ ! -e /etc/debian_version ]]; then no_engine "please install: ${missing[*]}"; fi
        step "engine: installed ${missing[*]}" install install_packages "${missing[@]}" || exit 3
    fi
    if ! engine_answers; then
        say "engine: starting a Docker engine ($(command -v dockerd); stop it with: $0 engine-stop)"
        step "engine: answers" engine start_engine || exit 3
    fi
}

engine_stop() {
    local pid
    pid=$(cat "$pid_file" 2>/dev/null || true)
    if [[ -z $pid || $(cat "/proc/$pid/comm" 2>/dev/null) != dockerd ]]; then
        rm -f "$pid_file"
        say "engine-stop: no engine that this script had started"
        return
    fi
    # dockerd stops its containers, then the containerd that it started.
    kill "$pid"
    step "engine: stopped" engine until_true 30 eval "! kill -0 $pid" || return 1
    rm -f "$pid_file"
}

# --- image -----------------------------------------------------------------------------------------------------------

# One word for everything that shapes the container. Names too, so that a renamed file counts.
inputs_hash() {
    (cd "$here" && find Dockerfile compose.yaml compose.bridged.yaml bridged etc -type f | sort | xargs cksum) | cksum | tr -d ' '
}

image_hash() { docker image inspect -f '{{index .Config.Labels "inputs"}}' "$name" 2>/dev/null || true; }

# Debian's own tool makes the same minimal system that the registry's image holds.
bootstrap_base() {
    command -v debootstrap >/dev/null || install_packages debootstrap
    local root status=0
    root=$(mktemp -d "${TMPDIR:-/var/tmp}/asterisk-base.XXXXXX")
    debootstrap --variant=minbase sid "$root" && tar -C "$root" -c . | docker import - "$base" || status=$?
    rm -rf "$root"
    return "$status"
}

base_image() {
    ! docker image inspect "$base" >/dev/null 2>&1 || return 0
    if step "image: pulled $base" base within 20 docker pull "$base" 2>/dev/null; then return; fi
    if ((EUID)) || [[ ! -e /etc/debian_version ]]; then
        say "image: $base cannot be pulled, and only root on Debian can make it here"
        return 1
    fi
    say "image: no registry gave $base; making it with debootstrap (about half a minute)"
    step "image: made $base" base bootstrap_base
}

image() {
    engine
    local hash
    hash=$(inputs_hash)
    [[ $(image_hash) != "$hash" ]] || return 0
    base_image
    # --network=host: the build needs apt, and an engine without packet filters has no other network.
    step "image: built $name" image docker build --network=host --label "inputs=$hash" -t "$name" "$here"
}

# --- container -------------------------------------------------------------------------------------------------------

# What the container must be: of these inputs, for this user, and writing into this checkout rather than another one.
identity() { echo "$(inputs_hash) $network $(id -u) $build"; }

running() { [[ $(docker container inspect -f '{{.State.Running}}' "$name" 2>/dev/null) == true ]]; }

# A recordings folder that was deleted and made again is another one, although its name is the same.
sees_our_recordings() {
    [[ $network != host ]] || [[ $(docker exec "$name" stat -c %i /recordings) == "$(stat -c %i "$build/recordings")" ]]
}

is_ours() {
    running && [[ $(docker container inspect -f '{{index .Config.Labels "identity"}}' "$name") == "$(identity)" ]] && sees_our_recordings
}

asterisk_rx() { docker exec "$name" asterisk -rx "$*"; }

fully_booted() { asterisk_rx 'core waitfullybooted' | grep -q 'fully booted'; }

# Bash's own TCP: no curl needed. In a subshell, because a refused connection would end the script.
ari_answers() (
    exec 3<>/dev/tcp/127.0.0.1/8088
    printf 'GET /ari/asterisk/ping?api_key=bridge:bridge HTTP/1.0\r\n\r\n' >&3
    within 2 head -n 1 <&3 | grep -q ' 200 '
)

takes_calls() {
    until_true 60 fully_booted && until_true 10 ari_answers && return
    docker logs --tail 25 "$name"
    return 1
}

# Two test processes may call `up` at once: the second waits and finds everything done.
lock() {
    exec 9>"$build/asterisk.lock"
    ! command -v flock >/dev/null || flock -w 300 9
}

replace_container() {
    # Never let compose recreate: version 1.29 fails on images of newer engines, and a leftover under our name would clash.
    docker rm -f "$name" >/dev/null 2>&1 || true
    compose up -d --no-build
}

up() {
    # Ours before Docker makes it, which would be as root.
    mkdir -p "$build/recordings"
    lock
    image
    is_ours || step "up: container started" up replace_container
    step "up: Asterisk takes calls, ARI answers on 127.0.0.1:8088" ready takes_calls
}

down() {
    if ! engine_answers; then
        say "down: no engine, so nothing to stop"
        return
    fi
    mkdir -p "$build"
    step "down: container removed" down compose down --remove-orphans
}

status() {
    if ! engine_answers; then
        say "engine: does not answer"
        return 1
    fi
    say "engine: $(docker version -f '{{.Server.Version}}')$([[ ! -e $pid_file ]] || echo ', started by this script')"
    case $(image_hash) in
        '') say "image: missing" ;;
        "$(inputs_hash)") say "image: up to date" ;;
        *) say "image: older than its inputs; \`up\` rebuilds it" ;;
    esac
    if ! running; then
        say "container: not running"
        return 1
    fi
    say "container: $(is_ours || echo 'not of this checkout and version, ')running, $(asterisk_rx 'core show uptime' | head -n 1)"
    say "calls: $(asterisk_rx 'core show channels' | grep 'active call')"
}

cli() {
    if (($#)); then
        asterisk_rx "$@"
    elif [[ -t 0 ]]; then
        docker exec -it "$name" asterisk -r
    else
        docker exec -i "$name" asterisk -r
    fi
}

case ${1:-} in
    engine | image | up | down | status) (($# == 1)) || { say "$1 takes no argument" && exit 2; } && "$1" ;;
    engine-stop) engine_stop ;;
    cli) shift && cli "$@" ;;
    logs) shift && docker logs "$@" "$name" ;;
    *) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2 && exit 2 ;;
esac
