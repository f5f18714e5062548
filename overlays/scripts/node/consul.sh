# The consul agent, in a container.
# Reads: CONSUL_BOOTSTRAP_EXPECT, CONSUL_ENCRYPT, CONSUL_IMAGE, CONSUL_SERVER, NODE_HOSTNAME,
# SHACK_ADDRESS.
# Writes: /var/lib/rpi-image/consul.

consul() {
    keeps consul && return 0
    consul_state=
    # everyone on the Pi can read a command line; $state has mode 0700
    rm -rf "$state/consul"
    volume=
    file=
    if [ -n "$CONSUL_ENCRYPT" ]; then
        put "$state/consul/encrypt.json" "{\"encrypt\": $(json "$CONSUL_ENCRYPT")}"
        volume=$state/consul:/rpi-image:ro
        file=/rpi-image/encrypt.json
    fi
    case $(entrypoint "$CONSUL_IMAGE") in
        *agent*) set -- ;;
        '' | '[]' | '<nil>' | '{[]}' | '<no value>') set -- consul agent -data-dir /tmp/consul ;;
        *consul* | *docker-entrypoint*) set -- agent ;;
        *) set -- ;;
    esac
    set -- "$@" -node "$NODE_HOSTNAME" -advertise "$address" -client 0.0.0.0
    if [ -n "$SHACK_ADDRESS" ]; then
        set -- "$@" -retry-join "$SHACK_ADDRESS" -retry-interval 15s
    fi
    if [ "$CONSUL_SERVER" = 1 ]; then
        set -- "$@" -server
        [ "${CONSUL_BOOTSTRAP_EXPECT:-0}" = 0 ] || set -- "$@" -bootstrap-expect "$CONSUL_BOOTSTRAP_EXPECT"
    fi
    [ -z "$file" ] || set -- "$@" -config-file "$file"
    run consul --net=host --restart=on-failure:10 ${volume:+-v "$volume"} "$CONSUL_IMAGE" "$@"
}

leader() {
    waited=0
    while :; do
        leader_now=$(http_get http://127.0.0.1:8500/v1/status/leader | tr -d '" \n')
        [ -z "$leader_now" ] || break
        waited=$((waited + 3))
        [ "$waited" -lt "$wait_seconds" ] || {
            consul_state='started, no leader yet'
            fail "consul sees no leader${SHACK_ADDRESS:+: is the shack $SHACK_ADDRESS up?}"
            return 1
        }
        sleep 3
    done
    consul_state="joined, leader $leader_now"
}
