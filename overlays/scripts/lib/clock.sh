# The clock, which a Pi does not keep without power: not before the card was built.
# Reads: RPI_IMAGE_BUILT.
# Writes: the clock, /run/rpi-image-clock.

# floor_clock: once a boot, and never against a time server, which may be right about a build
# machine whose clock was ahead
floor_clock() {
    clock_now=$(date -u +%s)
    [ "$clock_now" -lt "${RPI_IMAGE_BUILT:-0}" ] && [ ! -e "$root/run/rpi-image-clock" ] || return 0
    ! is_synchronised || return 0
    # before the init system /run may be read-only
    { mkdir -p "$root/run" && : >"$root/run/rpi-image-clock"; } 2>/dev/null || true
    on_machine date -u -s "@$RPI_IMAGE_BUILT" >/dev/null
}

is_synchronised() {
    case $(on_machine timedatectl 2>/dev/null) in
        *'ynchronized: yes'*) return 0 ;;
    esac
    return 1
}
