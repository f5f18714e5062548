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

# claim: move this board's files to their places, node.env last, and remove those of other nodes.
# claimed_now is set only if the folders are really gone: a claim that is repeated at every boot
# must not ask for a reboot every time.
claim() {
    claimed=$(identity_here)
    [ -n "$claimed" ] || return 0
    open_boot
    if is_claimed "$here/identities/$claimed" || claim_files "$here/identities/$claimed"; then
        say "this board is $claimed"
        forget_others
        [ -d "$here/identities" ] || claimed_now=1
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

# forget_others: rename the folders first, so that a power cut leaves no half identity
forget_others() {
    rm -rf "$here/identities.done"
    mv "$here/identities" "$here/identities.done" 2>/dev/null && sync
    rm -rf "$here/identities" "$here/identities.done"
    sync
}

# claim_files FOLDER: move meta-data after the other files: it has the new instance id, with which
# cloud-init would take them for complete after a power cut
claim_files() {
    (
        cd "$1" || exit 1
        find . -type f ! -path ./rpi-image/node.env ! -path ./meta-data | while IFS= read -r own; do
            take_place "${own#./}" || exit 1
        done &&
            { [ ! -f meta-data ] || take_place meta-data; } &&
            take_place rpi-image/node.env
    )
}

# take_place PATH: copy a file of the current folder to its place on the boot partition
take_place() {
    case $1 in
        */*) mkdir -p "$boot/${1%/*}" || return 1 ;;
    esac
    cp "$1" "$boot/$1.new" && sync && mv -f "$boot/$1.new" "$boot/$1" && sync && return 0
    rm -f "$boot/$1.new"
    return 1
}
