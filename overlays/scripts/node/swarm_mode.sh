# Swarm mode, beside which consul runs. The token comes from the shack's consul: it exists only once the swarm does.
# Reads: CONSUL_PORT, SHACK_ADDRESS.
# Writes: /var/lib/rpi-image/swarm.run.

swarm_mode() {
    swarm_now=$(limit 60 docker info --format '{{.Swarm.LocalNodeState}}' 2>/dev/null)
    if [ "$swarm_now" = active ] && [ "$(content "$state/swarm.run")" = "$address $SHACK_ADDRESS" ]; then
        swarm_state="joined as $address"
        return 0
    fi
    swarm_state=
    token=$(http_get "http://$(in_url "$SHACK_ADDRESS"):${CONSUL_PORT:-8500}/v1/kv/rpi-image/swarm/worker?raw")
    [ -n "$token" ] || {
        fail "no swarm token at the shack $SHACK_ADDRESS: is it up?"
        return 1
    }
    case $swarm_now in
        '' | inactive) ;;
        *) limit 120 docker swarm leave --force >/dev/null 2>&1 ;;
    esac
    say "joining the swarm of $SHACK_ADDRESS"
    tell 'joining the swarm'
    swarm_words=$(limit 120 docker swarm join --token "$token" --advertise-addr "$address" \
        "$(in_url "$SHACK_ADDRESS"):2377" 2>&1) || {
        fail "swarm join failed: $(printf '%s' "$swarm_words" | tail -n 1)"
        return 1
    }
    swarm_now=$(limit 60 docker info --format '{{.Swarm.LocalNodeState}}' 2>/dev/null)
    [ "$swarm_now" = active ] || {
        fail "the swarm has not taken this node: its state is ${swarm_now:-unknown}"
        return 1
    }
    put "$state/swarm.run" "$address $SHACK_ADDRESS"
    swarm_state="joined as $address"
}
