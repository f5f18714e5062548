# The boot partition, and the installer on it if the configuration of the card has changed.
# Reads: RPI_IMAGE_HASH.
# Writes: nothing.

find_boot() {
    for place in /boot/firmware /boot; do
        is_ours "$root$place" || on_machine mount "$place" 2>/dev/null
        if is_ours "$root$place"; then
            boot=$root$place
            return 0
        fi
    done
}

# is_ours FOLDER: it is the boot partition; node.env is missing for a moment while it is replaced
is_ours() {
    [ -f "$1/rpi-image/node.env" ] || [ -f "$1/rpi-image/next.list" ]
}

# hash_in FILE: print the hash of the configuration in a node.env
hash_in() {
    # shellcheck source=/dev/null
    (. "$1" >/dev/null 2>&1 && printf '%s' "$RPI_IMAGE_HASH")
}

# reinstall: run the installer if the card has another configuration, or its installation failed
reinstall() {
    [ -n "$boot" ] || return 0
    card_hash=$(hash_in "$boot/rpi-image/node.env")
    [ -n "$card_hash" ] || [ -f "$boot/rpi-image/next.list" ] || return 0
    [ -f "$boot/rpi-image/next.list" ] || [ "$card_hash" != "$(content "$state/installed")" ] ||
        [ "$card_hash" != "$(content "$state/scrubbed")" ] ||
        [ -d "$boot/rpi-image/identities" ] || [ -d "$boot/rpi-image/identities.done" ] || return 0
    say "installing the configuration on the card"
    limit 900 env RPI_IMAGE_CALLER=node sh "$boot/rpi-image/install" 2>/dev/null
    # the hash is read again: the installer may have claimed another node for this board
    new_hash=$(content "$state/installed")
    if [ -n "$new_hash" ] && [ "$new_hash" != "$RPI_IMAGE_HASH" ] &&
        [ "$new_hash" = "$(hash_in "$state/node.env")" ]; then
        exec sh "$state/node" "$@"
    fi
}
