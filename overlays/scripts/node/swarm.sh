# Classic Swarm (standalone, registered in consul).
# Reads: DOCKER_PORT, DOCKER_TCP, SWARM_IMAGE, SWARM_PATH, SWARM_VERSION.
# Writes: /var/lib/rpi-image/last_address.

# is_old_swarm: before 0.3 the flag is --addr, and the key is PATH/HOST:PORT
is_old_swarm() {
    case $SWARM_VERSION in
        0.[0-2] | 0.[0-2].*) return 0 ;;
    esac
    return 1
}

# forget_old: delete the keys of earlier addresses of this Pi; nothing else removes them
forget_old() {
    forget_failed=
    [ -f "$state/last_address" ] || return 0
    while IFS= read -r old; do
        case $old in
            '' | "$here") continue ;;
        esac
        say "removing the old entry $old"
        http_delete 127.0.0.1:8500 "/v1/kv/${SWARM_PATH:-swarm}/$old" || forget_failed="$forget_failed$old
"
        is_old_swarm || http_delete 127.0.0.1:8500 "/v1/kv/${SWARM_PATH:-swarm}/docker/swarm/nodes/$old" || true
    done <"$state/last_address"
}

# is_registered: the agent has put its key into consul. The container runs before that, and after it
# has failed to.
is_registered() {
    if is_old_swarm; then
        swarm_key=${SWARM_PATH:-swarm}/$here
    else
        swarm_key=${SWARM_PATH:-swarm}/docker/swarm/nodes/$here
    fi
    waited=0
    until [ -n "$(http_get "http://127.0.0.1:8500/v1/kv/$swarm_key")" ]; do
        waited=$((waited + 3))
        [ "$waited" -lt "$wait_seconds" ] || {
            swarm_state='started, not registered yet'
            fail "swarm has not registered $here in consul: $(last_line swarm)"
            return 1
        }
        sleep 3
    done
}

swarm() {
    here=$(in_url "$address"):${DOCKER_PORT:-2375}
    if [ -z "$SWARM_IMAGE" ]; then
        swarm_state='not joined: no swarm image is set'
        return 0
    fi
    if [ "$DOCKER_TCP" = 0 ]; then
        swarm_state='not joined: docker listens on no TCP port'
        return 0
    fi
    if ! keeps swarm || [ "$(content "$state/last_address")" != "$here" ]; then
        swarm_state=
        forget_old
        # before the join, so that an address that was announced is always deleted later
        put "$state/last_address" "$forget_failed$here"
    fi
    if ! keeps swarm; then
        tell 'joining the swarm'
        if is_old_swarm; then
            set -- join --addr "$here"
        else
            set -- join --advertise "$here"
        fi
        case $(entrypoint "$SWARM_IMAGE") in
            '' | '[]' | '<nil>' | '{[]}' | '<no value>') set -- swarm "$@" ;;
        esac
        run swarm --restart=on-failure:10 "$SWARM_IMAGE" "$@" \
            "consul://$(in_url "$address"):8500/${SWARM_PATH:-swarm}" || return 1
    fi
    is_registered || return 1
    swarm_state="joined as $here"
}
