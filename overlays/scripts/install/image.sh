# What this image is: its init system, and what runs its network.
# Reads: NODE_GENERATION.
# Writes: nothing.

is_systemd() {
    is_running && return 0
    case $(readlink "$root/sbin/init" 2>/dev/null) in
        *systemd*) return 0 ;;
    esac
    return 1
}

# native WORD: the image's own configuration on the boot partition has taken care of it
native() {
    [ "$NODE_GENERATION" = cloud-init ] && grep -q -F -e "$1" "$boot/network-config" 2>/dev/null
}

has_network_manager() {
    [ -x "$root/usr/sbin/NetworkManager" ] || return 1
    is_masked NetworkManager && return 1
    # ifupdown keeps what it names
    ! grep -q "^[[:space:]]*iface[[:space:]]*${1:-wlan0}[[:space:]]" "$root/etc/network/interfaces" 2>/dev/null
}

has_wifi() {
    for profile in "$here"/wifi/wpa_supplicant.conf "$here"/wifi/*.nmconnection; do
        [ ! -s "$profile" ] || return 0
    done
    return 1
}
