# A static address, set in whatever runs the wired network on this image.
# Reads: NETWORK_ADDRESS, NETWORK_DNS, NETWORK_GATEWAY, NETWORK_INTERFACE.
# Writes: /etc/NetworkManager/system-connections/rpi-image-wired.nmconnection, /etc/dhcpcd.conf,
# /etc/network/interfaces, /etc/resolv.conf, /var/lib/rpi-image/static_address.

address() {
    [ -n "$NETWORK_INTERFACE" ] || NETWORK_INTERFACE=eth0
    if native "$NETWORK_ADDRESS" && ! { native 'version: 1' && has_dhcpcd; }; then
        # HypriotOS before 1.12.1 runs dhcpcd on the wired network, whatever network-config says
        return 0
    fi
    if has_network_manager "$NETWORK_INTERFACE"; then
        [ -s "$card/network/wired.nmconnection" ]
        copy "$card/network/wired.nmconnection" \
            /etc/NetworkManager/system-connections/rpi-image-wired.nmconnection 600
    elif has_dhcpcd; then
        # not as an argument, where a file that cannot be read would count as an empty one
        address_text=$(cat "$card/network/dhcpcd.conf")
        set_block /etc/dhcpcd.conf 644 "$address_text"
    elif [ -f "$root/etc/network/interfaces" ]; then
        address_text=$(cat "$card/network/interfaces")
        interfaces_set "$NETWORK_INTERFACE" "$address_text"
        address_dns
    else
        printf 'nothing on this image takes a static address\n' >&2
        return 1
    fi
    # a change of it asks for a reboot (follow_up)
    record file "$state/static_address"
    put "$state/static_address" 644 "$NETWORK_INTERFACE
$NETWORK_ADDRESS $NETWORK_GATEWAY"
}

# address_dns: name the DNS servers in resolv.conf, unless something else writes that file
address_dns() {
    [ -n "$NETWORK_DNS" ] || return 0
    [ ! -x "$root/sbin/resolvconf" ] && [ ! -L "$root/etc/resolv.conf" ] || return 0
    address_servers=
    for server in $NETWORK_DNS; do
        address_servers="$address_servers${address_servers:+$newline}nameserver $server"
    done
    put /etc/resolv.conf 644 "$address_servers"
}
