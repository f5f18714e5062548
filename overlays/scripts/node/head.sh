#!/bin/sh
# Joins this Pi to its cluster, at every boot and for as long as it runs: address, docker, images,
# consul, leader, swarm, status. Whatever is missing (network, shack, docker, registry) is waited
# for with a growing pause; nothing here can hold up the boot. `node once` makes a single pass and
# ends with its success.
#
# RPI_IMAGE_ROOT: a folder that stands for `/`; the clock, the name, the services and the LED of
# the running machine are then left alone unless RPI_IMAGE_FAKES is set.
# RPI_IMAGE_PAUSE, _CHECK, _WAIT, _SETTLE: seconds of the first pause after a failure, of the pause
# between two checks, of the patience with docker and the leader in one pass, and until a container
# that was started has to be running.
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
settle_seconds=${RPI_IMAGE_SETTLE:-2}
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
light_now=
fields_written=
