# Messages of the node script: on stderr and in its log.
# Reads: no setting.
# Writes: /var/log/rpi-image.log.

# say WORDS: the same words are not repeated
say() {
    [ "$1" != "$last_said" ] || return 0
    last_said=$1
    printf 'rpi-image: %s\n' "$1" >&2
    keep "$1" 2>/dev/null
}

# keep WORDS: add a line to the log; above 256 KiB its older half is removed
keep() {
    mkdir -p "${log%/*}"
    printf '%s %s\n' "$(now)" "$1" >>"$log"
    if [ "$(wc -c <"$log")" -gt 262144 ]; then
        tail -c 131072 "$log" >"$log.new" && mv -f "$log.new" "$log"
    fi
}

# fail WORDS: set the error of this pass
fail() {
    error=$1
    say "$1"
    return 1
}
