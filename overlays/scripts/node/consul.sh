# The consul agent, in a container.
# Reads: CONSUL_BOOTSTRAP_EXPECT, CONSUL_DNS, CONSUL_ENCRYPT, CONSUL_IMAGE, CONSUL_SERVER, DOCKER_PORT,
# DOCKER_TCP, NODE_HOSTNAME, SHACK_ADDRESS, SHACK_KIND.
# Writes: /var/lib/rpi-image/consul.

consul() {
    keeps consul && return 0
    consul_state=
    leave_consul
    consul_config
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
    if [ -d "$state/consul" ]; then
        set -- "$@" -config-file /rpi-image/node.json
        run consul --net=host --restart=on-failure:10 -v "$state/consul:/rpi-image:ro" "$CONSUL_IMAGE" "$@"
    else
        run consul --net=host --restart=on-failure:10 "$CONSUL_IMAGE" "$@"
    fi
}

# consul_config: everyone on the Pi can read a command line, but $state has mode 0700. The images
# bind the DNS port 53 of the host, which systemd-resolved holds on HypriotOS before 1.12.1.
consul_config() {
    rm -rf "$state/consul"
    config=
    [ "$CONSUL_DNS" = 1 ] || config='"ports": {"dns": -1}'
    [ -z "$CONSUL_ENCRYPT" ] || config="$config${config:+, }\"encrypt\": $(json "$CONSUL_ENCRYPT")"
    [ "$SHACK_KIND" != swarm-mode ] || config="$config${config:+, }$(consul_id)$(consul_services)"
    [ -z "$config" ] || put "$state/consul/node.json" "{$config}"
}

# consul_id: print the same ID at each boot; with another one the servers refuse the name until the
# old one counts as failed. Not the machine-id itself, which must not be shown (machine-id(5)).
consul_id() {
    id_words=$(content "$root/etc/machine-id")
    case $id_words in
        '' | *[!0-9a-f]*) return 0 ;;
    esac
    printf '"node_id": "%s", ' "$(printf 'consul %s' "$id_words" | sha256sum |
        sed 's/^\(.\{8\}\)\(.\{4\}\)\(.\{4\}\)\(.\{4\}\)\(.\{12\}\).*/\1-\2-\3-\4-\5/')"
}

# consul_services: print what this Pi offers, with checks. Without a TCP socket, Docker is looked
# for on the port of its swarm (7946), which dockerd itself holds.
consul_services() {
    service_port=${DOCKER_PORT:-2375}
    [ "$DOCKER_TCP" != 0 ] || service_port=7946
    printf '"services": [%s, %s]' "$(consul_service docker "$service_port")" "$(consul_service ssh 22)"
}

# consul_service NAME PORT
consul_service() {
    printf '{"name": "%s", "port": %s, ' "$1" "$2"
    printf '"check": {"tcp": "127.0.0.1:%s", "interval": "15s", "timeout": "5s"}}' "$2"
}

# leave_consul: SIGINT lets the agent leave its cluster, so that its old address does not linger
# there as a failed member
leave_consul() {
    is_up consul || return 0
    limit 20 docker kill --signal=INT consul >/dev/null 2>&1
    left=0
    while [ "$left" -lt "$settle_seconds" ] && is_up consul; do
        left=$((left + 1))
        sleep 1
    done
}

leader() {
    waited=0
    while :; do
        leader_now=$(http_get http://127.0.0.1:8500/v1/status/leader | tr -d '" \n')
        [ -z "$leader_now" ] || break
        [ "$waited" != 0 ] || tell 'waiting for a leader of consul'
        is_up consul || {
            fail "consul ended: $(last_line consul)"
            return 1
        }
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
