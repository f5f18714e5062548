#!/bin/sh
# Written by rpi-image; systemd runs it once, with the root writable and without network.
# It must end with 0: otherwise systemd powers the Pi off. Bookworm cuts it at the clean-up below.
boot=${0%/*}
installer=$boot/rpi-image/install

enable_ssh() {
    if [ -x /usr/lib/raspberrypi-sys-mods/imager_custom ]; then
        /usr/lib/raspberrypi-sys-mods/imager_custom enable_ssh
    else
        systemctl enable ssh
    fi
}

# The vendor's tool also renames the image's first user and ends the dialogue on the console.
name_user() {
    if [ -n "$USER_PASSWORD_HASH" ] && [ -x /usr/lib/userconf-pi/userconf ]; then
        /usr/lib/userconf-pi/userconf "$USER_NAME" "$USER_PASSWORD_HASH"
    fi
}

if [ -f "$boot/rpi-image/node.env" ]; then
    (
        . "$boot/rpi-image/node.env"
        if [ -n "$USER_NAME" ]; then
            name_user
        fi
        if [ -n "$USER_NAME" ] || [ -s "$boot/rpi-image/authorized_keys" ]; then
            enable_ssh
        fi
    )
fi
if [ -f "$installer" ]; then
    sh "$installer"
fi

rm -f /boot/firstrun.sh
sed -i 's| systemd\.run.*||' /boot/cmdline.txt
exit 0
