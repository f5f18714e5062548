# SSH host keys: new ones for a new identity, or those of the settings.
# Reads: no setting.
# Writes: /etc/ssh/ssh_host_*_key and .pub, /var/lib/rpi-image/keys_due.

# new_host_keys: replace the keys of another identity. The link keys_due survives a power cut (a
# file might be empty after it): to `old`, some of those keys may still be there; to `new`, they
# are gone, and a run that was cut short may have left half of the new ones.
new_host_keys() {
    keys_due=$(readlink "$root$state/keys_due" 2>/dev/null || true)
    if [ "$keys_due" = new ]; then
        half_host_keys
    else
        for key in "$root"/etc/ssh/ssh_host_*_key "$root"/etc/ssh/ssh_host_*_key.pub; do
            [ -e "$key" ] || continue
            [ -n "$keys_due" ] || keys_are_due old
            keys_due=old
            rm -f "$key"
        done
        [ -n "$keys_due" ] || return 0
        keys_are_due new
    fi
    printf 'removed the SSH host keys of another identity\n' >&2
    make_host_keys
    rm -f "$root$state/keys_due"
}

keys_are_due() {
    rm -f "$root$state/keys_due.new"
    ln -s "$1" "$root$state/keys_due.new"
    mv -f "$root$state/keys_due.new" "$root$state/keys_due"
}

# make_host_keys: without OpenSSH, the SSH server of the image makes its own
make_host_keys() {
    command -v ssh-keygen >/dev/null 2>&1 || return 0
    limit 180 ssh-keygen -A ${root:+-f "$root"} >/dev/null 2>&1 || {
        printf 'no new SSH host keys could be made\n' >&2
        return 1
    }
}

# half_host_keys: remove incomplete pairs; ssh-keygen -A does not replace existing files
half_host_keys() {
    for key in "$root"/etc/ssh/ssh_host_*_key; do
        [ ! -s "$key" ] || [ ! -s "$key.pub" ] || continue
        rm -f "$key" "$key.pub"
    done
}

# given_host_keys: install the keys of the card
given_host_keys() {
    for key in "$card"/ssh/ssh_host_*_key; do
        [ -s "$key" ] || continue
        key_path=/etc/ssh/${key##*/}
        record hostkey "$key_path"
        copy_key "$key" "$key_path" 600
        [ ! -s "$key.pub" ] || copy_key "$key.pub" "$key_path.pub" 644
    done
}

# copy_key FROM PATH MODE: as copy, but recorded as a key, which is generated again
copy_key() {
    prepare
    (umask 077 && cat "$1" >"$part")
    chmod "$3" "$part"
    place "$2"
}

# undo_host_key PATH: a key that was given is no longer used; one that has come since stays
undo_host_key() {
    cmp -s "$root$state/card/ssh/${1##*/}" "$root$1" || return 0
    drop "$1"
    drop "$1.pub"
    make_host_keys
}
