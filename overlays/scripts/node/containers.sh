# Containers. Each belongs to one boot, address and configuration, and is replaced for another.
# Reads: no setting.
# Writes: /var/lib/rpi-image/*.run.

# entrypoint IMAGE: print it; the words to add depend on it
entrypoint() {
    limit 60 docker inspect --format '{{.Config.Entrypoint}}' "$1" 2>/dev/null
}

is_up() {
    [ "$(limit 60 docker inspect --format '{{.State.Running}}' "$1" 2>/dev/null)" = true ]
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
    limit 120 docker rm -f "$run_name" >/dev/null 2>&1
    say "starting $run_name: $*"
    run_words=$(limit 300 docker run -d --name "$run_name" "$@" 2>&1) || {
        run_words=$(printf '%s' "$run_words" | grep -v '^See ' | tail -n 1)
        fail "$run_name could not be started: $run_words"
        return 1
    }
    sleep "$settle_seconds"
    is_up "$run_name" || {
        run_words=$(limit 30 docker logs --tail 5 "$run_name" 2>&1 | grep . | tail -n 1)
        fail "$run_name ended at once: $run_words"
        return 1
    }
    put "$state/$run_name.run" "$run_key"
}
