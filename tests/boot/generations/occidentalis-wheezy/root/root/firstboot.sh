#!/bin/sh
# Stands in for the vendor's of 16 April 2015, in its order.
/usr/local/sbin/vendor-settings

# raspi-config --expand-rootfs: the partition now, the file system at the next boot
grow-partition
cat >/etc/init.d/resize2fs_once <<'EOF'
#!/bin/sh
### BEGIN INIT INFO
# Provides:          resize2fs_once
# Required-Start:
# Required-Stop:
# Default-Start:     2 3 4 5 S
# Default-Stop:
# Short-Description: Resize the root file system to fill its partition
### END INIT INFO
[ "$1" != start ] || {
    resize2fs /dev/mmcblk0p2
    update-rc.d resize2fs_once remove
    rm /etc/init.d/resize2fs_once
}
EOF
chmod +x /etc/init.d/resize2fs_once
update-rc.d resize2fs_once defaults

sleep 5
reboot
