# What `rpi-image apply` has not finished: the card was removed, or the computer lost power, after it had
# written a list of the new files and copies of them. They are put into their places before anything
# is read, so that the Pi is wholly the new node.
# Reads: no setting.
# Writes: the files of rpi-image/next.list, on the boot partition.

# finish_apply WORDS...: call the installer of the new plan, with these words, if there was a list
finish_apply() {
    list=$here/next.list
    # without its last line it is not complete, which a rename prevents but a worn card may not
    [ -f "$list" ] && [ "$(tail -n 1 "$list")" = end ] || return 0
    locked
    open_boot
    say 'finishing what rpi-image apply has begun'
    if ! { carry_out && sync && rm -f "$list" && sync; }; then
        failure='the new configuration cannot be written to the boot partition'
        return 0
    fi
    rmdir "$root/run/rpi-image-install" 2>/dev/null
    RPI_IMAGE_FINISHED=1 exec sh "$here/install" "$@"
}

# carry_out: a copy of each copy is renamed; they stay until the secrets are removed from the card, and
# until then tell that clusters of earlier files are free
carry_out() {
    while read -r verb path; do
        case $verb in
            from) copies=$boot/$path ;;
            remove) rm -f "$boot/$path" || return 1 ;;
            write)
                cmp -s "$copies$path" "$boot/$path" && continue
                mkdir -p "$(dirname "$boot/$path")" && cp "$copies$path" "$boot/$path.rpi-new" &&
                    mv -f "$boot/$path.rpi-new" "$boot/$path" || return 1
                ;;
        esac
    done <"$list" 2>/dev/null
}
