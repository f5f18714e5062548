# The clock, and the time that fake-hwclock restores: not before the card was built.
# Reads: RPI_IMAGE_BUILT.
# Writes: /etc/fake-hwclock.data, the clock.

set_clock() {
    floor_clock
    [ -f "$root/etc/fake-hwclock.data" ] || return 0
    clock_built=$(date -u -d "@$RPI_IMAGE_BUILT" '+%Y-%m-%d %H:%M:%S')
    clock_saved=$(text_of /etc/fake-hwclock.data)
    clock_last=$(printf '%s\n%s\n' "$clock_built" "$clock_saved" | sort | tail -n 1)
    edit /etc/fake-hwclock.data 644 "$clock_last"
}
