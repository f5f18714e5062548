# The SSH keys that may log in; the SSH service is enabled for them and for the user.
# Reads: USER_NAME.
# Writes: .ssh/authorized_keys in the user's home, /etc/systemd/system/multi-user.target.wants.

ssh_keys() {
    now_at /etc/passwd
    if [ -n "$USER_NAME" ]; then
        keys_line=$(entry passwd "$USER_NAME")
    else
        keys_line=$(grep -e '^[^:]*:[^:]*:1000:' "$found" | head -n 1)
    fi
    [ -n "$keys_line" ] || {
        printf 'there is no user to whom the SSH keys could belong\n' >&2
        return 1
    }
    keys_home=$(home_of "$keys_line")
    # a home that is made here would have nothing else in it
    [ -d "$root$keys_home" ] || {
        printf 'there is no %s for the SSH keys\n' "$keys_home" >&2
        return 1
    }
    mkdir -p "$root$keys_home/.ssh"
    chmod 700 "$root$keys_home/.ssh"
    keys_text=$(cat "$card/authorized_keys")
    set_block "$keys_home/.ssh/authorized_keys" 600 "$keys_text"
    now_at "$keys_home/.ssh/authorized_keys"
    chmod 600 "$found"
    give_to "$(owner_of "$keys_line")" "$root$keys_home/.ssh" "$found"
}

ssh_service() {
    for unit in /lib/systemd/system/ssh.service /usr/lib/systemd/system/ssh.service; do
        if [ -f "$root$unit" ] && ! is_masked ssh; then
            link "$unit" /etc/systemd/system/multi-user.target.wants/ssh.service
            break
        fi
    done
}
