# The clock: never before the time at which the card was built, and right before an upgrade.
# Reads: NTP_SERVER, RPI_IMAGE_BUILT.
# Writes: the clock.

floor_clock() {
    [ "$(date -u +%s)" -ge "${RPI_IMAGE_BUILT:-0}" ] || on_machine date -u -s "@$RPI_IMAGE_BUILT" >/dev/null
}

# sync_time: waits for the right time, but not forever: TLS and apt refuse a clock that is behind
sync_time() {
    tries=0
    while [ "$tries" -lt 12 ]; do
        tries=$((tries + 1))
        case $(on_machine timedatectl 2>/dev/null) in
            *'ynchronized: yes'*) return 0 ;;
        esac
        if [ -n "$NTP_SERVER" ]; then
            on_machine limit 20 ntpdate -u "$NTP_SERVER" >/dev/null 2>&1 && return 0
            on_machine limit 20 busybox ntpd -n -q -p "$NTP_SERVER" >/dev/null 2>&1 && return 0
        fi
        sleep 5
    done
    say 'the time is not synchronised'
    return 1
}
