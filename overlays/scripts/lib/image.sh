# What runs on this image.
# Reads: no setting.
# Writes: nothing.

# is_running: systemd runs here by now; early hooks run before it
is_running() {
    [ -d "$root/run/systemd/system" ]
}

is_masked() {
    [ "$(readlink "$root/etc/systemd/system/$1.service" 2>/dev/null)" = /dev/null ]
}

has_dhcpcd() {
    [ -f "$root/etc/dhcpcd.conf" ] || return 1
    is_masked dhcpcd && return 1
    [ -x "$root/sbin/dhcpcd" ] || [ -x "$root/usr/sbin/dhcpcd" ] || [ -x "$root/sbin/dhcpcd5" ] ||
        [ -x "$root/usr/sbin/dhcpcd5" ]
}
