# The clock, and the time that the image restores at boot: not before the card was built.
# Reads: RPI_IMAGE_BUILT.
# Writes: /etc/fake-hwclock.data, /var/lib/systemd/timesync/clock, the clock.

set_clock() {
    floor_clock
    if [ -L "$root/etc/fake-hwclock.data" ]; then
        set_linked_hwclock
    elif [ -f "$root/etc/fake-hwclock.data" ]; then
        clock_last=$(clock_of "$(text_of /etc/fake-hwclock.data)")
        edit /etc/fake-hwclock.data 644 "$clock_last"
    elif [ -x "$root/lib/systemd/systemd-timesyncd" ] || [ -x "$root/usr/lib/systemd/systemd-timesyncd" ]; then
        # timesyncd sets the clock to the time of this file at least (systemd-timesyncd.service(8));
        # Raspberry Pi OS has no fake-hwclock from trixie on
        mkdir -p "$root/var/lib/systemd/timesync"
        clock_file=$root/var/lib/systemd/timesync/clock
        clock_saved=0
        [ ! -e "$clock_file" ] || clock_saved=$(date -u -r "$clock_file" +%s)
        [ "$clock_saved" -ge "$RPI_IMAGE_BUILT" ] || touch -d "@$RPI_IMAGE_BUILT" "$clock_file"
    fi
}

# clock_of SAVED: print the later one of the time in fake-hwclock's form and that of the build
clock_of() {
    clock_built=$(date -u -d "@$RPI_IMAGE_BUILT" '+%Y-%m-%d %H:%M:%S')
    printf '%s\n%s\n' "$clock_built" "$1" | sort | tail -n 1
}

# set_linked_hwclock: HypriotOS keeps the file on the boot partition, behind a link that stays
set_linked_hwclock() {
    clock_file=$(readlink "$root/etc/fake-hwclock.data")
    case $clock_file in
        /*) clock_file=$root$clock_file ;;
        *) clock_file=$root/etc/$clock_file ;;
    esac
    [ -f "$clock_file" ] || return 0
    clock_saved=$(cat "$clock_file")
    clock_last=$(clock_of "$clock_saved")
    [ "$clock_last" = "$clock_saved" ] || printf '%s\n' "$clock_last" >"$clock_file"
}
