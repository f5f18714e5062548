# SSH host keys: new ones for a new identity, or those of the settings.
# Reads: no setting.
# Writes: /etc/ssh/ssh_host_*_key and .pub, /var/lib/rpi-image/ssh, /var/lib/rpi-image/keys_due.

# new_host_keys: replace the keys of another identity. The file keys_due survives a power cut:
# with `old`, some of those keys may still be there; with `new` they are gone, and a run that was
# cut short may have left half of the new ones.
new_host_keys() {
    keys_due=$(text_of "$state/keys_due")
    if [ "$keys_due" = new ]; then
        half_host_keys
    else
        for key in "$root"/etc/ssh/ssh_host_*_key "$root"/etc/ssh/ssh_host_*_key.pub; do
            [ -e "$key" ] || continue
            [ -n "$keys_due" ] || put "$state/keys_due" 644 old
            keys_due=old
            rm -f "$key"
        done
        [ -n "$keys_due" ] || return 0
        put "$state/keys_due" 644 new
    fi
    printf 'removed the SSH host keys of another identity\n' >&2
    if ! command -v ssh-keygen >/dev/null 2>&1; then
        # without OpenSSH, the SSH server of the image makes its own keys
        drop "$state/keys_due"
        return 0
    fi
    limit 180 ssh-keygen -A ${root:+-f "$root"} >/dev/null 2>&1 || {
        printf 'no new SSH host keys could be made\n' >&2
        return 1
    }
    sync
    drop "$state/keys_due"
}

# half_host_keys: remove incomplete pairs; ssh-keygen -A does not replace existing files
half_host_keys() {
    for key in "$root"/etc/ssh/ssh_host_*_key; do
        [ ! -s "$key" ] || [ ! -s "$key.pub" ] || continue
        rm -f "$key" "$key.pub"
    done
}

# given_host_keys: install the keys of the card; the node script compares with those in $state
given_host_keys() {
    for key in "$here"/ssh/ssh_host_*_key; do
        [ -s "$key" ] || continue
        key_name=${key##*/}
        copy "$key" "$state/ssh/$key_name" 600
        copy "$key" "/etc/ssh/$key_name" 600
        if [ -s "$key.pub" ]; then
            copy "$key.pub" "$state/ssh/$key_name.pub" 644
            copy "$key.pub" "/etc/ssh/$key_name.pub" 644
        fi
    done
    [ ! -d "$root$state/ssh" ] || chmod 700 "$root$state/ssh"
}
