# Docker: wait until it answers, and set its options if it was installed after the first boot.
# Reads: no setting.
# Writes: /var/lib/rpi-image/no_docker.

docker_ready() {
    if ! has docker; then
        put "$state/no_docker" "$(now)"
        case $(content "$state/packages") in
            installing) fail 'docker is being installed' ;;
            *) fail 'docker is not on this image' ;;
        esac
        return 1
    fi
    docker_answers || return 1
    if [ -e "$state/no_docker" ] && [ -n "$boot" ]; then
        # Docker was installed later. Once the daemon answers, its package is complete, and the
        # installer can read the unit. It removes this mark when the options are set.
        limit 300 env RPI_IMAGE_CALLER=node sh "$boot/rpi-image/install" again >/dev/null 2>&1
        todo
        docker_answers || return 1
    fi
    docker_state=$(limit 20 docker version --format '{{.Server.Version}}' 2>/dev/null) ||
        docker_state=$(limit 20 docker version 2>/dev/null | sed -n 's/^Server version: //p')
    docker_state=${docker_state:-running}
    docker_seen=yes
}

docker_answers() {
    waited=0
    until limit 20 docker version >/dev/null 2>&1; do
        [ "$waited" != 0 ] || tell 'waiting for docker'
        waited=$((waited + 3))
        [ "$waited" -lt "$wait_seconds" ] || {
            docker_state=
            fail "docker does not answer$(docker_words)"
            # On a slow card the first start may time out, and nothing else tries again.
            [ -n "$docker_seen" ] || start_service docker
            return 1
        }
        sleep 3
    done
}

# docker_words: print the last error in the daemon's log
docker_words() {
    if is_systemd_running; then
        words=$(on_machine limit 20 journalctl -q -n 20 -o cat -u docker 2>/dev/null |
            grep -i -e 'err' -e 'fail' -e 'unable' | tail -n 1)
    else
        words=$(tail -n 1 "$root/var/log/docker.log" 2>/dev/null)
    fi
    [ -z "$words" ] || printf ': %s' "$words"
}
