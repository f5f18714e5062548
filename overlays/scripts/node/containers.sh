# Containers. Each belongs to one boot, address and configuration, and is replaced for another.
# Reads: no setting.
# Writes: /var/lib/rpi-image/*.run.

# entrypoint IMAGE: print it; the words to add depend on it
entrypoint() {
    limit 60 docker inspect --format '{{.Config.Entrypoint}}' "$1" 2>/dev/null
}

# is_up NAME: it runs; Docker says `running` of one that restarts in a loop, too, but its status
# differs. Docker before 1.9 has no status.
is_up() {
    up_status=$(limit 60 docker inspect --format '{{.State.Status}}' "$1" 2>/dev/null)
    case $up_status in
        running) return 0 ;;
        '' | '<no value>')
            up_status=$(limit 60 docker inspect --format '{{.State.Running}} {{.State.Restarting}}' "$1" 2>/dev/null)
            case $up_status in
                true | 'true false' | 'true <no value>') return 0 ;;
            esac
            ;;
    esac
    return 1
}

# stays_up NAME: it still runs after a while, and has not been restarted in it
stays_up() {
    stayed=0
    while is_up "$1"; do
        [ "$stayed" -lt "$settle_seconds" ] || break
        stayed=$((stayed + 1))
        sleep 1
    done
    is_up "$1" || return 1
    case $(limit 60 docker inspect --format '{{.RestartCount}}' "$1" 2>/dev/null) in
        '' | 0 | '<no value>') return 0 ;;
    esac
    return 1
}

# last_line NAME: print what it said last
last_line() {
    limit 30 docker logs --tail 5 "$1" 2>&1 | grep . | tail -n 1
}

# keeps NAME: the container runs, and belongs to this boot, address and configuration
keeps() {
    [ "$(content "$state/$1.run")" = "$run_key" ] && is_up "$1"
}

# run NAME WORDS...: replace the container of that name
run() {
    run_name=$1
    shift
    rm -f "$state/$run_name.run"
    # with the volumes that its image names (VOLUME /data): they would fill the card
    limit 120 docker rm -fv "$run_name" >/dev/null 2>&1
    say "starting $run_name: $*"
    run_words=$(limit 300 docker run -d --name "$run_name" "$@" 2>&1) || {
        run_words=$(printf '%s' "$run_words" | grep -v '^See ' | tail -n 1)
        fail "$run_name could not be started: $run_words"
        return 1
    }
    stays_up "$run_name" || {
        fail "$run_name ended at once: $(last_line "$run_name")"
        return 1
    }
    put "$state/$run_name.run" "$run_key"
}
