# Ways to run a command: with a time limit; only on the machine itself.
# Reads: no setting.
# Writes: nothing.

# limit SECONDS COMMAND...: return its exit code; once the time is up it is killed. A command
# that was started by setsid is killed with its whole process group.
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

# on_machine COMMAND...: run it only if the system that we set up is the running one
on_machine() {
    [ -z "$root" ] || [ -n "${RPI_IMAGE_FAKES-}" ] || return 0
    "$@"
}
