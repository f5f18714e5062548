# Run commands: with a time limit, and only on the machine itself.
# Reads: no setting.
# Writes: nothing.

# limit SECONDS COMMAND...: its exit code, or that of a killed command once the time is up; all of
# its session goes with a command that was started by setsid
limit() {
    limit_seconds=$1
    shift
    "$@" </dev/null &
    limit_job=$!
    (
        trap 'kill "$limit_sleep" 2>/dev/null; exit 0' TERM
        sleep "$limit_seconds" &
        limit_sleep=$!
        wait "$limit_sleep"
        kill -9 "-$limit_job" || kill -9 "$limit_job"
    ) >/dev/null 2>&1 &
    limit_watch=$!
    wait "$limit_job"
    limit_code=$?
    kill "$limit_watch" 2>/dev/null
    wait "$limit_watch" 2>/dev/null
    return "$limit_code"
}

# on_machine COMMAND...: only where the folder we configure is the running system
on_machine() {
    [ -z "$root" ] || [ -n "${RPI_IMAGE_FAKES-}" ] || return 0
    "$@"
}
