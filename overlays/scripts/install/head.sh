#!/bin/sh
# Makes this Pi the node that node.env beside this file describes: once per configuration, by
# whoever calls it (init=, runcmd, firstrun.sh, the node script). It does no network and no docker
# work, every step may be repeated, and it always ends with 0: whatever fails, the Pi goes on
# booting, the reason stands in `status` and `install.log` beside this file, and the next boot
# tries again. Its name holds no dot because the kernel drops words with a dot from `init=` lines.
#
# `install docker` makes the Docker step alone, for a Docker that came after the first boot.
#
# RPI_IMAGE_ROOT: a folder to configure instead of `/`; commands that would touch the running
# machine are then left out unless RPI_IMAGE_FAKES is set.
# shellcheck disable=SC2153

root=${RPI_IMAGE_ROOT-}
caller=${RPI_IMAGE_CALLER-}
if [ -z "$root" ]; then
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
fi
export PATH LC_ALL=C
umask 022
trap 'exit 0' EXIT
trap '' HUP PIPE

case $0 in
    */*) here=$(cd "${0%/*}" && pwd) ;;
    *) here=$(pwd) ;;
esac
boot=${here%/*}
state=/var/lib/rpi-image
log_text=
failure=
warning=
no_docker='there is no docker.service on this image'
lock_held=
newline='
'
