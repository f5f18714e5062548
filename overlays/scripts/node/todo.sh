# What the installer has left for the running system to do.
# Reads: no setting.
# Writes: /var/lib/rpi-image/todo.

# due WORD: take WORD off the list; fail if it was not there
due() {
    is_due "$1" || return 1
    due_left=
    for due_word in $(content "$state/todo"); do
        [ "$due_word" = "$1" ] || due_left="$due_left $due_word"
    done
    put "$state/todo" "$due_left"
    # if the list cannot be changed, do not reboot again and again
    ! is_due "$1"
}

is_due() {
    case " $(content "$state/todo") " in
        *" $1 "*) return 0 ;;
    esac
    return 1
}

# first_boot_done: wait up to ten minutes for cloud-init, so that a reboot does not interrupt it
first_boot_done() {
    waited=0
    cloud=$root/run/cloud-init
    while [ -e "$cloud/enabled" ] && [ ! -e "$cloud/result.json" ] && [ "$waited" -lt 600 ]; do
        on_machine sleep 5
        waited=$((waited + 5))
    done
}

# todo: do what is on the list and quick; the network may depend on it
todo() {
    [ -f "$state/todo" ] || return 0
    if due reboot; then
        # the reboot includes these
        for word in wifi ssh time docker; do
            due "$word"
        done
        say 'one reboot so that the network settings take effect'
        write_status
        first_boot_done
        sync
        on_machine reboot
        on_machine sleep 60
        return 0
    fi
    if due wifi; then join_wifi; fi
    if is_due keyboard; then
        on_machine limit 120 setupcon --save >/dev/null 2>&1
        due keyboard
    fi
    if due ssh; then restart_service ssh; fi
    if due time; then restart_time; fi
    if due docker; then restart_service docker; fi
    [ -n "$(content "$state/todo" | tr -d ' \n')" ] || rm -f "$state/todo"
}

# todo_slow: do what takes minutes on an old Pi, once the network is up
todo_slow() {
    is_due locale || return 0
    on_machine limit 900 locale-gen >/dev/null 2>&1
    due locale
    todo
}

# join_wifi: make whatever runs the wifi read its files again
join_wifi() {
    [ -e "$root/sys/class/net/wlan0" ] || return 0
    say 'starting wifi'
    if has rfkill; then
        on_machine limit 20 rfkill unblock wifi >/dev/null 2>&1
    fi
    if has nmcli; then
        on_machine limit 60 nmcli connection reload
        on_machine limit 60 nmcli radio wifi on
    elif has_dhcpcd; then
        on_machine limit 60 wpa_cli -i wlan0 reconfigure || restart_service dhcpcd
    else
        on_machine limit 60 ifdown --force wlan0
        on_machine limit 120 ifup wlan0
    fi >/dev/null 2>&1
}
