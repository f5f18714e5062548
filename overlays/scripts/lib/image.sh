# What runs on this image, as both scripts need to know.
# Reads: no setting.
# Writes: nothing.

# is_systemd_running: as sd_booted(3) tells; hooks by init= run before systemd
is_systemd_running() {
    [ -d "$root/run/systemd/system" ]
}

# is_masked SERVICE: linked to /dev/null, so that systemd never starts it (systemd.unit(5))
is_masked() {
    [ "$(readlink "$root/etc/systemd/system/$1.service" 2>/dev/null)" = /dev/null ]
}

# has_dhcpcd: HypriotOS from 1.12.1 on keeps dhcpcd.conf and masks the service
has_dhcpcd() {
    [ -f "$root/etc/dhcpcd.conf" ] || return 1
    is_masked dhcpcd && return 1
    [ -x "$root/sbin/dhcpcd" ] || [ -x "$root/usr/sbin/dhcpcd" ] || [ -x "$root/sbin/dhcpcd5" ] ||
        [ -x "$root/usr/sbin/dhcpcd5" ]
}
