# Messages of the installer: on stderr, and collected for the report.
# Reads: no setting.
# Writes: nothing.

say() {
    printf 'rpi-image: %s\n' "$1" >&2
    log_text="$log_text$1$newline"
}
