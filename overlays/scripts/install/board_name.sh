# The name of a board that is in no roster, on the image of a class.
# Reads: NODE_HOSTNAME.
# Writes: NODE_HOSTNAME in /var/lib/rpi-image/node.env; on the boot partition occidentalis.txt,
# device-init.yaml, user-data.

# name_unclaimed: a board in no roster says which one it is
name_unclaimed() {
    [ -d "$here/identities" ] && [ "$NODE_HOSTNAME" = unclaimed ] || return 0
    unclaimed_serial=$(board_serial)
    unclaimed_serial=${unclaimed_serial:-0000}
    NODE_HOSTNAME=unclaimed-${unclaimed_serial#"${unclaimed_serial%????}"}
    warning="this board is in no roster (serial $unclaimed_serial)"
}

# native_name: the vendor's own files would set the name of the image again
native_name() {
    case $NODE_HOSTNAME in
        unclaimed-*) ;;
        *) return 0 ;;
    esac
    set_setting "$state/node.env" NODE_HOSTNAME "NODE_HOSTNAME='$NODE_HOSTNAME'"
    for native in occidentalis.txt device-init.yaml user-data; do
        scrub_file "$native" with_own_name
    done
}

with_own_name() {
    sed "s/^\(hostname[=:] *[\"']\{0,1\}\)unclaimed\([\"']\{0,1\}\)\$/\1$NODE_HOSTNAME\2/"
}
