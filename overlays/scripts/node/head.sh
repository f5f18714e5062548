#!/bin/sh
# Joins this Pi to its cluster, as a service that runs all the time: address, Docker, images,
# consul, leader, swarm, status. It waits for what is missing (network, shack, Docker, registry)
# with a growing pause, and does not delay the boot. `node once` makes a single pass and exits with
# 0 if that succeeded.
#
# RPI_IMAGE_ROOT: a folder instead of `/`; the clock, the name, the services and the LED of the
# running machine are then left alone unless RPI_IMAGE_FAKES is set.
# RPI_IMAGE_PAUSE: seconds of the first pause after a failure.
# RPI_IMAGE_CHECK: seconds between two checks.
# RPI_IMAGE_WAIT: seconds to wait for Docker, and for a leader, in one pass.
# RPI_IMAGE_SETTLE: seconds after which a new container must still run.
#
# This file is joined from the parts in overlays/scripts, in the order of node.parts.
# shellcheck disable=SC2153

root=${RPI_IMAGE_ROOT-}
if [ -z "$root" ]; then
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
fi
HOME=${HOME:-/root}
export PATH HOME LC_ALL=C
umask 022
trap '' HUP

state=$root/var/lib/rpi-image
log=$root/var/log/rpi-image.log
pause_seconds=${RPI_IMAGE_PAUSE:-5}
check_seconds=${RPI_IMAGE_CHECK:-45}
wait_seconds=${RPI_IMAGE_WAIT:-120}
settle_seconds=${RPI_IMAGE_SETTLE:-5}
longest_pause=120
boot=
error=
last_said=
address=
docker_state=
docker_seen=
consul_state=
swarm_state=
jobs_started=0
carried_started=0
light_now=
fields_written=
quiet_looks=0
stage=
shack_is_silent=
told_fields=
told_ago=0
