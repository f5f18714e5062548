# The service that runs the node script, for systemd and for sysvinit.
# Reads: no setting.
# Writes: /var/lib/rpi-image/node, /var/lib/rpi-image/node.env,
# /etc/systemd/system/rpi-image-node.service, /etc/init.d/rpi-image-node and its links.

node_service() {
    copy "$here/node" "$state/node" 755
    if [ -z "$again" ] || [ ! -s "$root$state/node.env" ]; then
        copy "$card/node.env" "$state/node.env" 600
        unclaimed_env
    fi
    if is_systemd; then
        put /etc/systemd/system/rpi-image-node.service 644 "[Unit]
Description=Joins this Pi to its cluster (rpi-image)
Wants=network.target
After=network.target

[Service]
ExecStart=/bin/sh $state/node
Restart=always
RestartSec=30
KillMode=process

[Install]
WantedBy=multi-user.target"
        link ../rpi-image-node.service /etc/systemd/system/multi-user.target.wants/rpi-image-node.service
    fi
    if ! is_systemd || [ -d "$root/etc/rc2.d" ]; then
        sysv_service
    fi
}

sysv_service() {
    put /etc/init.d/rpi-image-node 755 "#!/bin/sh
### BEGIN INIT INFO
# Provides:          rpi-image-node
# Required-Start:    \$local_fs \$remote_fs
# Required-Stop:
# Should-Start:      \$network docker
# Should-Stop:
# Default-Start:     2 3 4 5
# Default-Stop:
# Short-Description: joins this Pi to its cluster
### END INIT INFO
case \$1 in
    start) ;;
    stop | restart | force-reload)
        pid=\$(cat /run/rpi-image-node.pid 2>/dev/null)
        if grep -q $state/node \"/proc/\${pid:-none}/cmdline\" 2>/dev/null; then
            kill \"\$pid\"
            sleep 1
        fi
        ;;
    *) echo \"usage: \$0 start|stop|restart\" >&2 ;;
esac
case \$1 in
    start | restart | force-reload) (setsid sh $state/node </dev/null >/dev/null 2>&1 &) ;;
esac
exit 0"
    if is_systemd; then
        # systemd prefers the unit to an init script of the same name
        return 0
    fi
    if [ ! -e "$root/etc/rc2.d/S99rpi-image-node" ]; then
        on_machine limit 60 update-rc.d rpi-image-node defaults >/dev/null 2>&1 || true
    fi
    for level in 2 3 4 5; do
        set -- "$root/etc/rc$level.d"/S??rpi-image-node
        if [ ! -L "$1" ] || is_owned file "/etc/rc$level.d/S99rpi-image-node"; then
            link ../init.d/rpi-image-node "/etc/rc$level.d/S99rpi-image-node"
        fi
    done
    # startpar runs only what this list of insserv names
    depend=$(text_of /etc/init.d/.depend.start)
    case $depend in
        '' | *rpi-image-node*) ;;
        TARGETS\ =*)
            edit /etc/init.d/.depend.start 644 "${depend%%"$newline"*} rpi-image-node
${depend#*"$newline"}"
            ;;
    esac
}
