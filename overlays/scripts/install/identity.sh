# What must differ between cards: the machine id, Docker's ids and the SSH host keys.
# Reads: NODE_GENERATION, NODE_HOSTNAME.
# Writes: /etc/machine-id, /var/lib/dbus/machine-id, /var/lib/rpi-image/identity; removes
# /etc/docker/key.json, /var/lib/docker/engine-id.

new_identity() {
    [ "$(text_of "$state/identity")" = "$NODE_HOSTNAME" ] && return 0
    if [ -s "$root/etc/machine-id" ] && [ "$(text_of /etc/machine-id)" != uninitialized ]; then
        identity=$(tr -d - <"$root/proc/sys/kernel/random/uuid")
        [ "${#identity}" = 32 ]
        put /etc/machine-id 444 "$identity"
        if [ -f "$root/var/lib/dbus/machine-id" ] && [ ! -L "$root/var/lib/dbus/machine-id" ]; then
            put /var/lib/dbus/machine-id 644 "$identity"
        fi
    elif [ -s "$root/var/lib/dbus/machine-id" ] && [ ! -e "$root/etc/machine-id" ]; then
        identity=$(tr -d - <"$root/proc/sys/kernel/random/uuid")
        [ "${#identity}" = 32 ]
        put /var/lib/dbus/machine-id 644 "$identity"
    fi
    drop /etc/docker/key.json
    drop /var/lib/docker/engine-id
    drop "$state/ssh"
    if [ "$NODE_GENERATION" != cloud-init ]; then
        new_host_keys
    fi
    put "$state/identity" 644 "$NODE_HOSTNAME"
}
