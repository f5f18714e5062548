# The right time, for work that needs it.
# Reads: NTP_SERVER.
# Writes: the clock.

# sync_time: wait for the right time, a few minutes at most; TLS and apt fail with a
# clock that is behind
sync_time() {
    tries=0
    while [ "$tries" -lt 12 ]; do
        tries=$((tries + 1))
        ! is_synchronised || return 0
        if [ -n "$NTP_SERVER" ]; then
            on_machine limit 20 ntpdate -u "$NTP_SERVER" >/dev/null 2>&1 && return 0
            on_machine limit 20 busybox ntpd -n -q -p "$NTP_SERVER" >/dev/null 2>&1 && return 0
        fi
        sleep 5
    done
    say 'the time is not synchronised'
    return 1
}
