# The image: which init system it has, and what runs its network.
# Reads: NODE_GENERATION.
# Writes: nothing.

# is_systemd: systemd is the init of this image, also if it does not run yet
is_systemd() {
    is_systemd_running && return 0
    case $(readlink "$root/sbin/init" 2>/dev/null) in
        *systemd*) return 0 ;;
    esac
    return 1
}

# native WORD: cloud-init's network-config on the boot partition has WORD, so cloud-init sets it
native() {
    [ "$NODE_GENERATION" = cloud-init ] && grep -q -F -e "$1" "$boot/network-config" 2>/dev/null
}

# has_network_manager [INTERFACE]
has_network_manager() {
    [ -x "$root/usr/sbin/NetworkManager" ] || return 1
    is_masked NetworkManager && return 1
    # NetworkManager leaves interfaces alone that interfaces(5) names (its plugin ifupdown)
    ! grep -q "^[[:space:]]*iface[[:space:]]*${1:-wlan0}[[:space:]]" "$root/etc/network/interfaces" 2>/dev/null
}

# has_wifi: the card has a wifi network to set up
has_wifi() {
    [ -n "$(on_card 'wifi/*')" ]
}
