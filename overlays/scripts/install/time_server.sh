# The time server, for timesyncd, chrony and ntpd.
# Reads: NTP_SERVER.
# Writes: /etc/systemd/timesyncd.conf.d/rpi-image.conf, /etc/chrony/sources.d/rpi-image.sources,
# /etc/ntp.conf.

ntp_server() {
    if is_systemd; then
        put /etc/systemd/timesyncd.conf.d/rpi-image.conf 644 "[Time]
NTP=$NTP_SERVER"
    fi
    if [ -d "$root/etc/chrony/sources.d" ]; then
        put /etc/chrony/sources.d/rpi-image.sources 644 "server $NTP_SERVER iburst prefer"
    fi
    if [ -f "$root/etc/ntp.conf" ]; then
        set_block /etc/ntp.conf 644 "server $NTP_SERVER iburst prefer"
    fi
}
