# What must differ between cards: the machine id, Docker's ids and the SSH host keys.
# Reads: NODE_GENERATION, NODE_HOSTNAME.
# Writes: /etc/machine-id, /var/lib/dbus/machine-id, /var/lib/rpi-image/identity; removes
# /etc/docker/key.json, /var/lib/docker/engine-id.

new_identity() {
    [ "$(text_of "$state/identity")" = "$NODE_HOSTNAME" ] && return 0
    if [ -s "$root/etc/machine-id" ] && [ "$(text_of /etc/machine-id)" != uninitialized ]; then
        if ! has_new_machine_id; then
            identity=$(tr -d - <"$root/proc/sys/kernel/random/uuid")
            [ "${#identity}" = 32 ]
            put /etc/machine-id 444 "$identity"
            if [ -f "$root/var/lib/dbus/machine-id" ] && [ ! -L "$root/var/lib/dbus/machine-id" ]; then
                put /var/lib/dbus/machine-id 644 "$identity"
            fi
        fi
    elif [ -s "$root/var/lib/dbus/machine-id" ] && [ ! -e "$root/etc/machine-id" ]; then
        identity=$(tr -d - <"$root/proc/sys/kernel/random/uuid")
        [ "${#identity}" = 32 ]
        put /var/lib/dbus/machine-id 644 "$identity"
    fi
    drop /etc/docker/key.json
    drop /var/lib/docker/engine-id
    if [ "$NODE_GENERATION" != cloud-init ]; then
        new_host_keys
    fi
    put "$state/identity" 644 "$NODE_HOSTNAME"
}

# has_new_machine_id: it was made in this boot, by systemd (its mark of a first boot) or by the
# image, after journald had named its folder after the old one. Programs use it already.
has_new_machine_id() {
    is_systemd_running || return 1
    [ ! -e "$root/run/systemd/first-boot" ] || return 0
    identity=$(text_of /etc/machine-id)
    [ ! -d "$root/run/log/journal/$identity" ] || return 1
    for journal in "$root"/run/log/journal/*; do
        [ ! -d "$journal" ] || return 0
    done
    return 1
}
