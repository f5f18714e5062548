#!/bin/sh
# Stands in for the vendor's: takes itself off, grows the partition, gives the disk another
# identifier, starts again. The file system is left to cloud-init.
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmp /run
mkdir -p /run/systemd
mount /boot
mount / -o remount,ro
sed -i 's| init=/usr/lib/raspi-config/init_resize\.sh||' /boot/cmdline.txt
grep -q splash /boot/cmdline.txt || sed -i 's/ quiet//g' /boot/cmdline.txt
sync
mount / -o remount,rw
old=$(dd if=/dev/mmcblk0 bs=1 skip=440 count=4 status=none | od -An -tx4)
new=$(grow-partition --new-id)
sed -i "s/${old# }/$new/g" /etc/fstab
sed -i "s/${old# }/$new/" /boot/cmdline.txt
sync
umount /boot
mount / -o remount,ro
sync
echo b >/proc/sysrq-trigger
sleep 5
