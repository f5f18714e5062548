# An image for a whole class. Each folder identities/serial-* or identities/mac-* has the files of
# one node; a board claims the one of its serial number or network address.
# Reads: NODE_HOSTNAME.
# Writes: the files of this board's node, in their places on the boot partition.

# identity_here: print the name of this board's folder, or nothing
identity_here() {
    serial=$(board_serial)
    if [ -n "$serial" ] && [ -d "$here/identities/serial-$serial" ]; then
        printf 'serial-%s' "$serial"
        return
    fi
    for address in "$root"/sys/class/net/*/address; do
        [ -r "$address" ] || continue
        mac=mac-$(tr -d ':\n' <"$address" | tr 'A-F' 'a-f')
        if [ -d "$here/identities/$mac" ]; then
            printf '%s' "$mac"
            return
        fi
    done
}

# board_serial: print the last eight digits of the serial number, those that differ between boards
board_serial() {
    serial_line=$(grep -i '^serial[[:space:]]*:' "$root/proc/cpuinfo" 2>/dev/null | tail -n 1)
    serial_digits=$(printf '%s' "${serial_line##*:}" | tr 'A-F' 'a-f' | tr -cd '0-9a-f')
    [ -n "$serial_digits" ] || return 0
    printf '00000000%s' "$serial_digits" | tail -c 8
}

# claim: put this board's files into their places. Then the files of the other nodes are
# overwritten; those of this board are, with its other secrets, once its settings are in place.
claim() {
    claimed=$(identity_here)
    [ -n "$claimed" ] || return 0
    open_boot
    if is_claimed "$here/identities/$claimed" || claim_files "$here/identities/$claimed"; then
        say "this board is $claimed"
        for other in "$here"/identities/*; do
            [ "$other" = "$here/identities/$claimed" ] || wipe_folder "$other"
        done
        # a claim that is repeated at every boot must not ask for a reboot every time
        rm -rf "$here/identities.done"
        if mv "$here/identities" "$here/identities.done" 2>/dev/null; then
            claimed_now=1
        fi
    else
        failure="the files of $claimed could not be put into place"
        say "$failure"
    fi
}

# is_claimed FOLDER: a power cut during the removal of the folders may leave one without node.env
is_claimed() {
    # shellcheck source=/dev/null
    [ ! -f "$1/rpi-image/node.env" ] &&
        (. "$here/node.env" && [ "$NODE_HOSTNAME" != unclaimed ]) >/dev/null 2>&1
}

# claim_files FOLDER: rename meta-data after the other files: it has the new instance id, with which
# cloud-init would take them for complete after a power cut; node.env is last
claim_files() {
    (
        cd "$1" || exit 1
        find . -type f >"$boot/rpi-image/.claimed" || exit 1
        while IFS= read -r own_file; do
            own_file=${own_file#./}
            case $own_file in
                */*) mkdir -p "$boot/${own_file%/*}" || exit 1 ;;
            esac
            cp "$own_file" "$boot/$own_file.new" || exit 1
        done <"$boot/rpi-image/.claimed"
        sync
        while IFS= read -r own_file; do
            case $own_file in
                ./meta-data | ./rpi-image/node.env) ;;
                *) take_place "${own_file#./}" || exit 1 ;;
            esac
        done <"$boot/rpi-image/.claimed"
        { [ ! -f meta-data ] || take_place meta-data; } && take_place rpi-image/node.env
    )
    claim_code=$?
    rm -f "$boot/rpi-image/.claimed"
    sync
    return "$claim_code"
}

# take_place PATH: rename the copy. The file that it replaces may hold a secret of the class; it is
# overwritten with the others.
take_place() {
    [ ! -f "$boot/$1" ] || mv -f "$boot/$1" "$boot/$1.rpi-old" || return 1
    mv -f "$boot/$1.new" "$boot/$1"
}
