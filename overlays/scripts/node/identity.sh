# This machine: its hostname, its SSH host keys and its architecture.
# Reads: NODE_ARCH, NODE_HOSTNAME, NODE_MACHINES.
# Writes: /etc/hostname, /etc/ssh/ssh_host_*.

# same_name: set name and keys again; the vendor's own first boot may have replaced them
same_name() {
    current=$(on_machine hostname)
    if [ -n "$current" ] && [ "$current" != "$NODE_HOSTNAME" ]; then
        say "the name was $current"
        put "$root/etc/hostname" "$NODE_HOSTNAME"
        on_machine hostname "$NODE_HOSTNAME"
    fi
    keys_changed=0
    for key in "$state"/card/ssh/ssh_host_*; do
        [ -f "$key" ] || continue
        cmp -s "$key" "$root/etc/ssh/${key##*/}" && continue
        cp -p "$key" "$root/etc/ssh/${key##*/}.new" &&
            mv -f "$root/etc/ssh/${key##*/}.new" "$root/etc/ssh/${key##*/}" && keys_changed=1
    done
    [ "$keys_changed" = 0 ] || restart_service ssh
}

# wrong_machine: say so if this Pi cannot run what the card is for
wrong_machine() {
    [ -n "$NODE_MACHINES" ] || return 1
    machine=$(uname -m)
    case " $NODE_MACHINES " in
        *" $machine "*) return 1 ;;
    esac
    say "this card is for $NODE_ARCH ($NODE_MACHINES), but this Pi is $machine"
}
