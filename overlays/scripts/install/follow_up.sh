# What is left for the running system to do: restarts, and one reboot at most.
# Reads: NODE_GENERATION.
# Writes: /var/lib/rpi-image/todo.

# later WORD: add WORD to the list of what the node script does once the system runs
later() {
    todo=$(text_of "$state/todo")
    case " $todo " in
        *" $1 "*) ;;
        *) note "$state/todo" "$todo $1" ;;
    esac
}

# reboots_anyway: started by firstrun.sh (systemd.run=), after which systemd reboots
reboots_anyway() {
    grep -q systemd.run= "$root/proc/cmdline" 2>/dev/null
}

# follow_up: look at what the steps have changed; early in a boot nothing needs a restart
follow_up() {
    case $changes in
        *'wrote /etc/default/keyboard'*) later keyboard ;;
    esac
    case $changes in
        *'/etc/locale.gen'*) later locale ;;
    esac
    is_systemd_running || [ "$caller" = node ] || return 0
    ! reboots_anyway || return 0
    case $changes in
        *'wrote /etc/default/docker'* | *docker.service.d* | *daemon.json* | *key.json* | *docker/tls*)
            later docker ;;
    esac
    case $changes in
        *'/etc/ssh/'* | *'SSH host keys'*) later ssh ;;
    esac
    case $changes in
        *' /etc/wpa_supplicant/'* | *'system-connections/rpi-image-wifi-'*) later wifi ;;
        # NetworkManager runs, and has read whether wifi is on before we changed that
        *) if [ -z "$again" ] && has_wifi && has_network_manager wlan0; then later wifi; fi ;;
    esac
    case $changes in
        *'/timesyncd.conf.d/'* | *'/chrony/sources.d/'* | *' /etc/ntp.conf'*) later time ;;
    esac
    case $changes in
        *'/static_address'*) later reboot ;;
    esac
    if { [ -n "$claimed_now" ] && [ "$NODE_GENERATION" = cloud-init ]; } || [ -n "$finished" ]; then
        # the vendor's program has read other files at this boot; it reads those of the node at the next
        later reboot
    fi
}

# start_service: start the node service now; at the next boot it starts by itself
start_service() {
    is_systemd_running || return 0
    on_machine limit 30 systemctl daemon-reload >/dev/null 2>&1
    if [ "$caller" != node ] && ! reboots_anyway; then
        on_machine limit 30 systemctl restart --no-block rpi-image-node.service >/dev/null 2>&1
    fi
}
