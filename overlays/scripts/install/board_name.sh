# The hostname of a board that is not in the roster, on an image for a whole class.
# Reads: NODE_HOSTNAME.
# Writes: NODE_HOSTNAME in /var/lib/rpi-image/node.env; on the boot partition occidentalis.txt,
# device-init.yaml, user-data.

# name_unclaimed: name a board without an identity after its serial number
name_unclaimed() {
    [ -d "$here/identities" ] && [ "$NODE_HOSTNAME" = unclaimed ] || return 0
    unclaimed_serial=$(board_serial)
    unclaimed_serial=${unclaimed_serial:-0000}
    NODE_HOSTNAME=unclaimed-${unclaimed_serial#"${unclaimed_serial%????}"}
    warning="this board is in no roster (serial $unclaimed_serial)"
}

# unclaimed_env: put the name into the settings of the node script
unclaimed_env() {
    case $NODE_HOSTNAME in
        unclaimed-*) set_setting "$state/node.env" NODE_HOSTNAME "NODE_HOSTNAME='$NODE_HOSTNAME'" ;;
    esac
}

# native_name: put the name into the vendor's files too; they would set `unclaimed` again
native_name() {
    case $NODE_HOSTNAME in
        unclaimed-*) ;;
        *) return 0 ;;
    esac
    for native in occidentalis.txt device-init.yaml user-data; do
        [ -f "$boot/$native" ] || continue
        native_text=$(with_own_name <"$boot/$native")
        [ "$native_text" = "$(cat "$boot/$native")" ] || boot_prepare "$native" "$native_text"
    done
}

with_own_name() {
    sed "s/^\(hostname[=:] *[\"']\{0,1\}\)unclaimed\([\"']\{0,1\}\)\$/\1$NODE_HOSTNAME\2/"
}
