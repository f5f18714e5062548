# Docker's options, in a file that the image's unit reads or is made to read.
# Reads: DOCKER_OPTS.
# Writes: /etc/default/docker, /etc/systemd/system/docker.service.d/zz-rpi-image.conf,
# /var/lib/rpi-image/no_docker, /var/lib/rpi-image/install_warning.

docker_options() {
    docker_text=
    docker_start=
    if is_systemd; then
        # not in a pipe, where a unit that cannot be read would count as none
        docker_text=$(docker_unit)
        docker_start=$(printf '%s\n' "$docker_text" | unit_start)
    fi
    if is_systemd && [ -z "$docker_start" ] && [ ! -e "$root/etc/init.d/docker" ]; then
        # Do not write the file either: installing a package that ships it would stop and ask
        # which version to keep (a conffile of dpkg).
        printf 'warning: %s\n' "$no_docker" >&2
        [ -e "$root$state/no_docker" ] || note "$state/no_docker" "$no_docker"
        return 0
    fi
    DOCKER_OPTS=$(with_kept_driver)
    docker_words=$DOCKER_OPTS
    docker_drop_in=
    if is_systemd; then
        set -f
        case $docker_start in
            *fd://*) docker_words=$(without_unix_socket "$DOCKER_OPTS") ;;
        esac
        docker_reads=0
        case $docker_text in
            *EnvironmentFile=*/etc/default/docker*)
                # shellcheck disable=SC2016 # the words of the unit, not ours
                case $docker_start in
                    *'$DOCKER_OPTS'* | *'${DOCKER_OPTS}'*) docker_reads=1 ;;
                esac
                ;;
        esac
        if [ "$docker_reads" = 0 ]; then
            docker_drop_in=$(without_flags "$docker_start" "$DOCKER_OPTS")
        fi
    fi
    set +f
    set_setting /etc/default/docker DOCKER_OPTS "DOCKER_OPTS=$(quoted "$docker_words")"
    if [ -n "$docker_drop_in" ]; then
        put /etc/systemd/system/docker.service.d/zz-rpi-image.conf 644 "# the unit does not read /etc/default/docker by itself
[Service]
EnvironmentFile=-/etc/default/docker
ExecStart=
ExecStart=$docker_drop_in\$DOCKER_OPTS"
    fi
    daemon_json
    drop "$state/no_docker"
    if [ "$(text_of "$state/install_warning")" = "$no_docker" ]; then
        note "$state/install_warning" ''
    fi
}

# with_kept_driver: print DOCKER_OPTS with the storage driver that has images already: with another
# one they would no longer be seen
with_kept_driver() {
    driver_words=" $DOCKER_OPTS "
    case $driver_words in
        *' --storage-driver=overlay2 '*) driver_there=overlay driver_wanted=overlay2 ;;
        *' --storage-driver=overlay '*) driver_there=overlay2 driver_wanted=overlay ;;
        *) driver_there= ;;
    esac
    if [ -n "$driver_there" ] && [ -d "$root/var/lib/docker/$driver_there" ] &&
        [ ! -d "$root/var/lib/docker/$driver_wanted" ]; then
        printf 'warning: Docker keeps its storage driver %s: its images are in it\n' "$driver_there" >&2
        driver_words="${driver_words%%" --storage-driver=$driver_wanted "*} --storage-driver=$driver_there ${driver_words#*" --storage-driver=$driver_wanted "}"
        driver_words=${driver_words# }
        printf '%s' "${driver_words% }"
    else
        printf '%s' "$DOCKER_OPTS"
    fi
}

# quoted TEXT: print TEXT in quotes that a shell and systemd (EnvironmentFile=) read alike
quoted() {
    case $1 in
        *[\\\"\$\`]*)
            case $1 in
                *\'*) printf '"%s"' "$(printf '%s' "$1" | sed 's/[\\"$`]/\\&/g')" ;;
                *) printf "'%s'" "$1" ;;
            esac
            ;;
        *) printf '"%s"' "$1" ;;
    esac
}
