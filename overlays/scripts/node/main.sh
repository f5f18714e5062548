# The loop of passes, with a growing pause while something is missing.
# Reads: CLUSTER, CLUSTER_IMAGES, CONSUL_IMAGE, NODE_HOSTNAME, RPI_IMAGE_HASH, SHACK_KIND,
# SWARM_IMAGE.
# Writes: /run/rpi-image-node.pid.

pass() {
    error=
    shack_is_silent=
    told_ago=$((told_ago + 1))
    floor_clock
    same_name
    after_vendor
    clear_free_space
    todo
    carried_once
    find_address || return 1
    jobs_once
    todo_slow
    if [ "$CLUSTER" != 1 ]; then
        has docker || return 0
        docker_ready
        return
    fi
    docker_ready || return 1
    run_key="$(cat "$root/proc/sys/kernel/random/boot_id" 2>/dev/null) $RPI_IMAGE_HASH $address"
    if [ "$SHACK_KIND" = swarm-mode ]; then
        todays_cluster
        return
    fi
    # shellcheck disable=SC2086 # a list
    images "$CONSUL_IMAGE" ${SWARM_IMAGE:+"$SWARM_IMAGE"} $CLUSTER_IMAGES || return 1
    keeps consul || tell 'starting consul'
    consul && leader && swarm
}

# todays_cluster: swarm mode and consul, of which each works without the other
todays_cluster() {
    swarm_mode
    swarm_code=$?
    # shellcheck disable=SC2086 # a list
    images ${CONSUL_IMAGE:+"$CONSUL_IMAGE"} $CLUSTER_IMAGES || return 1
    if [ -n "$CONSUL_IMAGE" ]; then
        keeps consul || tell 'starting consul'
        consul && leader || return 1
    fi
    return "$swarm_code"
}

# runs_already FILE: the process in FILE is another copy of this script; its number may belong to
# another program by now
runs_already() {
    other=$(content "$1")
    [ -n "$other" ] && [ "$other" != "$$" ] && [ -r "/proc/$other/cmdline" ] &&
        tr '\000' ' ' <"/proc/$other/cmdline" | grep -q -e "$state/node"
}

# alone: check that no other copy runs
alone() {
    lock=$root/run/rpi-image-node.pid
    ! runs_already "$lock" || return 1
    mkdir -p "${lock%/*}"
    printf '%s\n' "$$" >"$lock"
}

# not_alone: tell a user who runs `node once` why nothing happens
not_alone() {
    [ "${1-}" = once ] || exit 0
    again='/etc/init.d/rpi-image-node restart'
    if is_systemd_running; then
        again='systemctl restart rpi-image-node'
    fi
    printf 'rpi-image: the node service runs (process %s); to have it try again: sudo %s\n' "$other" "$again" >&2
    exit 1
}

# jitter: print some seconds at random, so that 30 Pis do not ask the registry at the same time
jitter() {
    letters=$(cut -c 1-2 /proc/sys/kernel/random/uuid 2>/dev/null)
    printf '%s' "$((0x${letters:-0} * pause_seconds / 256))"
}

back_off() {
    pause=$pause_seconds
    doubled=1
    while [ "$doubled" -lt "$1" ] && [ "$pause" -lt "$longest_pause" ]; do
        pause=$((pause * 2))
        doubled=$((doubled + 1))
    done
    [ "$pause" -le "$longest_pause" ] || pause=$longest_pause
    printf '%s' "$((pause + $(jitter)))"
}

# rest SECONDS: sleep, but wake up early if consul ends: Docker does not start it again after it
# was killed. Waiting for that costs no processor time.
rest() {
    if [ "$failures" = 0 ] && [ -n "$consul_state" ] && has docker; then
        limit "$1" docker wait consul >/dev/null 2>&1
        case $? in
            0)
                say 'consul has ended'
                sleep 5
                return
                ;;
            137) return ;;
        esac
    fi
    sleep "$1"
}

main() {
    # a file with a syntax error would end this shell: try it in another one first
    # shellcheck source=/dev/null
    if [ ! -r "$state/node.env" ] || ! (. "$state/node.env") >/dev/null 2>&1; then
        say "$state/node.env is missing or broken"
        exit 1
    fi
    # shellcheck source=/dev/null
    . "$state/node.env"
    alone || not_alone "$@"
    floor_clock
    booted=$(now)
    find_boot
    drop_zeros
    mismatch=
    if wrong_machine; then
        mismatch=$last_said
    fi
    reinstall "$@"
    failures=0
    while :; do
        if pass; then
            failures=0
            [ -n "$error" ] || say "$NODE_HOSTNAME at $address: consul ${consul_state:--}, swarm ${swarm_state:--}"
            next=$check_seconds
        else
            failures=$((failures + 1))
            next=$(back_off "$failures")
        fi
        write_status
        if [ "$failures" = 0 ]; then
            stage=ready
        fi
        tell "${stage:-starting}"
        if [ "${1-}" = once ]; then
            [ "$failures" = 0 ]
            exit
        fi
        rest "$next"
    done
}
