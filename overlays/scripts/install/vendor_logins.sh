# The logins that images come with (pi:raspberry, pirate:hypriot, root:hypriot): everyone knows their
# passwords, so they are locked once the node has a user of its own.
# Reads: KEEP_VENDOR_LOGIN, USER_NAME.
# Writes: /etc/shadow.

is_vendor_login() {
    case $1 in
        root | pi | pirate | ubuntu) return 0 ;;
    esac
    return 1
}

vendor_logins_locked() {
    [ -z "$USER_NAME" ] || [ "$KEEP_VENDOR_LOGIN" = 1 ] || printf 'locked'
}

# vendor_logins: lock them as passwd -l does; after the installation their password is left to
# the user who sets one
vendor_logins() {
    for vendor in root pi pirate ubuntu; do
        [ "$vendor" != "$USER_NAME" ] || continue
        vendor_line=$(entry shadow "$vendor")
        [ -n "$vendor_line" ] || continue
        vendor_hash=$(hash_of "$vendor_line")
        case $vendor_hash in
            '!'* | '*'*) is_owned entry /etc/shadow "$vendor" || continue ;;
            *) [ -n "$again" ] || vendor_hash=!$vendor_hash ;;
        esac
        set_entry shadow 640 "$vendor" "$(with_hash "$vendor_line" "$vendor_hash")"
    done
}
