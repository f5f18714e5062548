# Services of the image, under systemd or sysvinit.
# Reads: no setting.
# Writes: nothing.

restart_service() {
    say "restarting $1"
    if is_systemd_running; then
        on_machine limit 30 systemctl daemon-reload
        # Docker's unit may start three times a minute, and the boot may have used them up.
        on_machine limit 30 systemctl reset-failed "$1"
        on_machine limit 180 systemctl restart "$1"
    else
        on_machine limit 180 "$root/etc/init.d/$1" restart
    fi >/dev/null 2>&1
}

# restart_time: restart the time service that the image has
restart_time() {
    say 'restarting the time service'
    for service in systemd-timesyncd chrony ntp; do
        if is_systemd_running; then
            on_machine limit 60 systemctl try-restart "$service"
        elif [ -x "$root/etc/init.d/$service" ]; then
            on_machine limit 60 "$root/etc/init.d/$service" restart
        fi
    done >/dev/null 2>&1
}

# start_service NAME: start it, unless it runs already
start_service() {
    say "starting $1"
    if is_systemd_running; then
        on_machine limit 30 systemctl reset-failed "$1"
        on_machine limit 30 systemctl start --no-block "$1"
    else
        on_machine limit 180 "$root/etc/init.d/$1" start
    fi >/dev/null 2>&1
}
