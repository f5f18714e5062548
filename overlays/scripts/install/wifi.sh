# Wifi, set up in whatever runs it on this image.
# Reads: WIFI_COUNTRY.
# Writes: /etc/wpa_supplicant/wpa_supplicant.conf,
# /etc/NetworkManager/system-connections/rpi-image-wifi-*, /etc/network/interfaces,
# /etc/default/crda, the switches of rfkill and NetworkManager.

wifi() {
    if ! native wifis:; then
        if has_network_manager wlan0; then
            wifi_network_manager
        elif [ -s "$card/wifi/wpa_supplicant.conf" ]; then
            copy "$card/wifi/wpa_supplicant.conf" /etc/wpa_supplicant/wpa_supplicant.conf 600
            wifi_interface
        fi
    fi
    # cloud-init 22.4 writes the keys into a file that everyone may read
    for profile in "$root"/etc/netplan/*-cloud-init.yaml; do
        [ ! -f "$profile" ] || chmod 600 "$profile"
    done
    wifi_unblocked
}

wifi_country() {
    if [ -f "$root/etc/default/crda" ]; then
        set_setting /etc/default/crda REGDOMAIN "REGDOMAIN=$WIFI_COUNTRY"
    fi
}

wifi_network_manager() {
    for profile in "$card"/wifi/*.nmconnection; do
        [ -s "$profile" ] || continue
        copy "$profile" "/etc/NetworkManager/system-connections/rpi-image-wifi-${profile##*/}" 600
    done
}

# wifi_unblocked: Raspberry Pi OS keeps wifi switched off until a country is set
wifi_unblocked() {
    if [ -f "$root/var/lib/NetworkManager/NetworkManager.state" ]; then
        set_setting /var/lib/NetworkManager/NetworkManager.state WirelessEnabled WirelessEnabled=true
    fi
    for switch in "$root"/var/lib/systemd/rfkill/*:wlan; do
        [ -f "$switch" ] || continue
        record file "${switch#"$root"}"
        edit "${switch#"$root"}" 644 0
    done
}

# wifi_interface: add the stanza that names the wpa_supplicant file; dhcpcd does not need one
wifi_interface() {
    has_dhcpcd && return 0
    [ -f "$root/etc/network/interfaces" ] || return 0
    owns_stanza wlan0 ||
        ! grep -q 'wpa-conf[[:space:]]*/etc/wpa_supplicant/wpa_supplicant.conf' \
            "$root/etc/network/interfaces" "$root"/etc/network/interfaces.d/* 2>/dev/null || return 0
    wifi_stanza='allow-hotplug wlan0
iface wlan0 inet dhcp
    wpa-conf /etc/wpa_supplicant/wpa_supplicant.conf'
    interfaces_set wlan0 "$wifi_stanza"
}
