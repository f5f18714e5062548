# Free clusters of the boot partition. An earlier version of the installer removed secrets without
# overwriting them: their clusters are filled with zeros once, in the background.
# Reads: no setting.
# Writes: on the boot partition rpi-image/zeros, for a time; /run/rpi-image-zeros.pid; it removes
# /var/lib/rpi-image/free_due, which the installer has made.

# drop_zeros: remove what a power cut has left, or a full boot partition takes no other file
drop_zeros() {
    [ -n "$boot" ] && [ -e "$boot/rpi-image/zeros" ] || return 0
    is_filling || rm -f "$boot/rpi-image/zeros"
}

is_filling() {
    runs_already "$root/run/rpi-image-zeros.pid"
}

# clear_free_space: begin once login is possible. Under sysvinit the service is the last of its
# runlevel. It outlives a restart of the service (KillMode=process).
clear_free_space() {
    [ -e "$state/free_due" ] && [ -n "$boot" ] && is_boot_over && is_partition || return 0
    ! is_filling || return 0
    (
        fill_free_space && rm -f "$state/free_due" &&
            say 'the free space of the boot partition has been overwritten'
    ) </dev/null >/dev/null 2>&1 &
    mkdir -p "$root/run"
    printf '%s\n' "$!" >"$root/run/rpi-image-zeros.pid"
}

# is_partition: it is mounted, so that the root file system is never filled
is_partition() {
    [ "$(device_of "$boot")" != "$(device_of "$boot/..")" ]
}

device_of() {
    df -P "$1" | awk 'END { print $1 }'
}

# fill_free_space: in steps that are flushed one by one, so that a slow card never has much to write
# at once. The partition is full for the length of the last step only.
fill_free_space() {
    zeros=$boot/rpi-image/zeros
    steps=0
    while rarely dd if=/dev/zero of="$zeros" bs=65536 count=64 seek="$((steps * 64))" conv=notrunc,fsync; do
        steps=$((steps + 1))
    done
    sync
    full=$(df -P -k "$boot" | awk 'END { print ($4 < 64) }')
    rm -f "$zeros"
    sync
    # it may have ended for another reason, as an error of the card: the next boot tries again
    [ "$full" = 1 ]
}

# rarely COMMAND...: run it when nothing else wants the card or the processor
rarely() {
    if has ionice; then
        set -- ionice -c 3 "$@"
    fi
    nice -n 19 "$@"
}
