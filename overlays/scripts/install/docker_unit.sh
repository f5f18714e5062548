# The image's docker.service, and the flags that it passes to the daemon.
# Reads: no setting.
# Writes: nothing.

# docker_unit: print the unit and its drop-ins, without ours, in the order of systemd
docker_unit() {
    for unit in /etc/systemd/system /lib/systemd/system /usr/lib/systemd/system; do
        if [ -f "$root$unit/docker.service" ]; then
            cat "$root$unit/docker.service"
            break
        fi
    done
    for unit in /lib /usr/lib /etc; do
        [ "$unit" != /usr/lib ] || [ ! -L "$root/lib" ] || continue
        for drop_in in "$root$unit"/systemd/system/docker.service.d/*.conf; do
            case $drop_in in
                */zz-rpi-image.conf) ;;
                *) [ ! -f "$drop_in" ] || cat "$drop_in" ;;
            esac
        done
    done
}

# unit_start: print the last ExecStart of the unit on stdin, with continued lines joined
unit_start() {
    start=
    # shellcheck disable=SC2162 # without -r on purpose: a backslash joins lines
    while IFS= read line; do
        case $line in
            ExecStart=*) start=${line#ExecStart=} ;;
        esac
    done
    printf '%s' "$start"
}

# without_flags COMMAND OPTIONS: print COMMAND without the flags that OPTIONS sets too
without_flags() {
    flag_skip=0
    flag_host=0
    for word in $1; do
        if [ "$flag_host" = 1 ]; then
            flag_host=0
            case $word in
                fd://*) printf '%s ' -H "$word" ;;
            esac
            continue
        fi
        if [ "$flag_skip" = 1 ]; then
            flag_skip=0
            case $word in
                -*) ;;
                *) continue ;;
            esac
        fi
        # shellcheck disable=SC2016 # the words of the unit, not ours
        case $word in
            '$DOCKER_OPTS' | '${DOCKER_OPTS}') ;;
            -H | --host) flag_host=1 ;;
            -H=* | --host=*)
                case $word in
                    *=fd://*) printf '%s ' "$word" ;;
                esac
                ;;
            -*)
                case " $2" in
                    *" ${word%%=*} "* | *" ${word%%=*}="* | *" ${word%%=*}")
                        case $word in
                            *=*) ;;
                            *) flag_skip=1 ;;
                        esac
                        ;;
                    *) printf '%s ' "$word" ;;
                esac
                ;;
            *) printf '%s ' "$word" ;;
        esac
    done
}

# without_unix_socket OPTIONS: print OPTIONS without -H unix://*/docker.sock, which fd:// serves
without_unix_socket() {
    socket_held=
    socket_words=
    for word in $1; do
        if [ -n "$socket_held" ]; then
            case $word in
                unix://*/docker.sock) ;;
                *) socket_words="$socket_words $socket_held $word" ;;
            esac
            socket_held=
            continue
        fi
        case $word in
            -H | --host) socket_held=$word ;;
            -H=unix://*/docker.sock | --host=unix://*/docker.sock) ;;
            *) socket_words="$socket_words $word" ;;
        esac
    done
    printf '%s' "${socket_words# }"
}
