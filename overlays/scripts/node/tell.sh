# How far this Pi is, told to the consul of the shack as one small JSON document. Only people read
# it, on the board and in `rpi-image status`.
# Reads: CLUSTER, CONSUL_PORT, NODE_HOSTNAME, RPI_IMAGE_HASH, SHACK_ADDRESS.
# Writes: nothing.

# tell STAGE [PERCENT]: a shack that does not answer costs three seconds in a pass, not more. What
# has not changed is told again after some passes, because the shack may have lost it.
tell() {
    stage=$1
    [ "$CLUSTER" = 1 ] && [ -n "$SHACK_ADDRESS" ] && [ -z "$shack_is_silent" ] || return 0
    tell_fields="\"stage\": $(json "$stage"), \"percent\": ${2:-null}, \"error\": $(json "$(printf '%.200s' "$error")")"
    tell_fields="$tell_fields, \"address\": $(json "$address"), \"hash\": $(json "$RPI_IMAGE_HASH")"
    tell_fields="$tell_fields, \"versions\": {\"kernel\": $(json "$(uname -r)"), \"docker\": $(json "$docker_state")}"
    if [ "$tell_fields" = "$told_fields" ] && [ "$told_ago" -lt 8 ]; then
        return 0
    fi
    tell_uptime=$(cut -d . -f 1 "$root/proc/uptime" 2>/dev/null)
    if http_put "$(in_url "$SHACK_ADDRESS"):${CONSUL_PORT:-8500}" "/v1/kv/rpi-image/nodes/$NODE_HOSTNAME" \
        "{$tell_fields, \"uptime\": ${tell_uptime:-null}, \"updated\": $(json "$(now)")}"; then
        told_fields=$tell_fields
        told_ago=0
    else
        shack_is_silent=yes
    fi
}

# short_name IMAGE: print it without registry, path and version
short_name() {
    short=${1##*/}
    printf '%s' "${short%%[:@]*}"
}
