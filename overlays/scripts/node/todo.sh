# What the installer had to leave for the running system.
# Reads: no setting.
# Writes: /var/lib/rpi-image/todo.

# due WORD: it was on the list of what the installer had to leave, and is now off it
due() {
    is_due "$1" || return 1
    due_left=
    for due_word in $(content "$state/todo"); do
        [ "$due_word" = "$1" ] || due_left="$due_left $due_word"
    done
    put "$state/todo" "$due_left"
    # a list that cannot be changed must not reboot the Pi again and again
    ! is_due "$1"
}

is_due() {
    case " $(content "$state/todo") " in
        *" $1 "*) return 0 ;;
    esac
    return 1
}

# first_boot_done: cloud-init's commands are not cut short by a reboot; it has its time
first_boot_done() {
    waited=0
    cloud=$root/run/cloud-init
    while [ -e "$cloud/enabled" ] && [ ! -e "$cloud/result.json" ] && [ "$waited" -lt 600 ]; do
        on_machine sleep 5
        waited=$((waited + 5))
    done
}

# todo: what the installer had to leave for the running system; the network may depend on it
todo() {
    [ -f "$state/todo" ] || return 0
    if due reboot; then
        # a boot does these by itself
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

# todo_slow: minutes on an old Pi, in which the network can come up
todo_slow() {
    is_due locale || return 0
    on_machine limit 900 locale-gen >/dev/null 2>&1
    due locale
    todo
}

# join_wifi: lets whoever runs the wifi read its files again
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
