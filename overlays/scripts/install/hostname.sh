# The hostname, and the name of the shack in /etc/hosts.
# Reads: NODE_HOSTNAME, SHACK_ADDRESS, SHACK_HOSTNAME.
# Writes: /etc/hostname, /etc/hosts, the running kernel's name.

host_name() {
    put /etc/hostname 644 "$NODE_HOSTNAME"
    hosts_new=$(through /etc/hosts with_name)
    edit /etc/hosts 644 "$hosts_new"
    on_machine hostname "$NODE_HOSTNAME" || true
}

# with_name: print hosts(5) from stdin with this node's line, and without the lines of an earlier
# shack, which shack_name adds
with_name() {
    hosts_local=0
    hosts_named=0
    while IFS= read -r line || [ -n "$line" ]; do
        case $line in
            '') ;;
            127.0.1.1 | 127.0.1.1[!0-9]*)
                [ "$hosts_named" = 1 ] || printf '127.0.1.1\t%s\n' "$NODE_HOSTNAME"
                hosts_named=1
                ;;
            127.0.0.1[!0-9]*)
                hosts_local=1
                printf '%s\n' "$line"
                ;;
            *'# rpi-image') [ "$line" != "$(shack_row)" ] || printf '%s\n' "$line" ;;
            *) printf '%s\n' "$line" ;;
        esac
    done
    [ "$hosts_local" = 1 ] || printf '127.0.0.1\tlocalhost\n'
    [ "$hosts_named" = 1 ] || printf '127.0.1.1\t%s\n' "$NODE_HOSTNAME"
}

shack_name() {
    shack_line=$(shack_row)
    [ -z "$shack_line" ] || add_row /etc/hosts "$shack_line"
}

# shack_row: print the shack's line of hosts(5), where it has an address and another name than ours
shack_row() {
    case $SHACK_ADDRESS in
        '' | *[!0-9a-fA-F.:]*) ;;
        *)
            [ -z "$SHACK_HOSTNAME" ] || [ "$SHACK_HOSTNAME" = "$NODE_HOSTNAME" ] ||
                printf '%s\t%s # rpi-image' "$SHACK_ADDRESS" "$SHACK_HOSTNAME"
            ;;
    esac
}
