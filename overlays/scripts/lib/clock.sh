# The clock, which a Pi does not keep without power: not before the card was built.
# Reads: RPI_IMAGE_BUILT.
# Writes: the clock.

floor_clock() {
    clock_now=$(date -u +%s)
    if [ "$clock_now" -lt "${RPI_IMAGE_BUILT:-0}" ]; then
        on_machine date -u -s "@$RPI_IMAGE_BUILT" >/dev/null
    fi
}
