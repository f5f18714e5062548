#!/bin/sh
# Makes this Pi the node that node.env beside this file describes, once per configuration. It is
# called by init=, runcmd, firstrun.sh or the node script. It uses neither network nor Docker, and
# every step can be repeated. It always exits with 0: if a step fails, the Pi still boots, the
# reason is in `status` and `install.log` beside this file, and the next boot tries again.
# The name has no dot: the kernel drops words with a dot from its command line, as parameters of
# modules (init/main.c, unknown_bootoption).
#
# `install again` looks at the owned settings of an installed node and corrects what has changed; the
# node script calls it until the image's own first boot is over, and for a Docker that comes later.
#
# RPI_IMAGE_ROOT: a folder to configure instead of `/`; commands that would act on the running
# machine are then skipped unless RPI_IMAGE_FAKES is set.
#
# This file is joined from the parts in overlays/scripts, in the order of install.parts.
# shellcheck disable=SC2153

root=${RPI_IMAGE_ROOT-}
caller=${RPI_IMAGE_CALLER-}
finished=${RPI_IMAGE_FINISHED-}
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
card=$here
log_text=
failure=
warning=
no_docker='there is no docker.service on this image'
lock_held=
owner=
unsure=
again=
tab=$(printf '\t')
boot_natives='occidentalis.txt device-init.yaml user-data'
newline='
'
