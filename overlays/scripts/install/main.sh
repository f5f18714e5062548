# One run of the installer. Each step runs in a subshell under `set -e`; its last line on stderr is
# the reason of a failure.
# Reads: NODE_HOSTNAME, RPI_IMAGE_HASH.
# Writes: /var/lib/rpi-image/installed, /var/lib/rpi-image/scrubbed.

# step LABEL FUNCTION: run one step; a failure does not stop the others
step() {
    words=$(
        set -e
        "$2" 2>&1
    )
    step_code=$?
    if [ -n "$words" ]; then
        say "$1: $words"
    fi
    changes="$changes$newline$words"
    case $words in
        *'warning: '*)
            step_warning=${words##*warning: }
            warning=${warning:-${step_warning%%"$newline"*}}
            ;;
    esac
    if [ "$step_code" != 0 ]; then
        reason=${words##*"$newline"}
        say "$1: failed ($step_code)"
        failure="${failure:+$failure; }$1: ${reason:-exit code $step_code}"
    fi
}

root_is_read_only() {
    mounted=
    while read -r _ place _ options _; do
        [ "$place" != / ] || mounted=$options
    done <"$root/proc/mounts"
    case ",$mounted," in
        *,ro,*) return 0 ;;
    esac
    return 1
} 2>/dev/null

# finish: make further runs with this configuration return at once
finish() {
    put "$state/scrubbed" 644 "$RPI_IMAGE_HASH"
    sync
}

# locked: let one installer run at a time; the lock is in /run, so it does not survive a boot
locked() {
    [ -z "$lock_held" ] && is_systemd_running || return 0
    lock_held=1
    tries=0
    until mkdir "$root/run/rpi-image-install" 2>/dev/null; do
        tries=$((tries + 1))
        [ "$tries" -lt 150 ] || break
        sleep 2
    done
    trap 'rmdir "$root/run/rpi-image-install" 2>/dev/null; exit 0' EXIT
}

main() {
    RPI_IMAGE_SCRUBBED='' NODE_HOSTNAME='this Pi' RPI_IMAGE_HASH='' RPI_IMAGE_BUILT=0 NODE_GENERATION=''
    changes=
    claimed_now=
    if [ -d "$here/identities.done" ]; then
        open_boot
        rm -rf "$here/identities.done"
        sync
    fi
    # a file with a syntax error would end this shell: try it in another one first
    # shellcheck source=/dev/null
    if [ ! -r "$here/node.env" ] || ! (. "$here/node.env" && [ -n "$RPI_IMAGE_HASH" ]) >/dev/null 2>&1; then
        failure='rpi-image/node.env is missing or broken'
        say "$failure"
        report
        return
    fi
    if [ -d "$here/identities" ]; then
        locked
        claim
    fi
    # shellcheck source=/dev/null
    . "$here/node.env"
    name_unclaimed
    if [ "${1-}" = docker ]; then
        step 'docker options' docker_options
        step 'running system' follow_up
        return
    fi
    if [ "$(text_of "$state/installed" 2>/dev/null)" = "$RPI_IMAGE_HASH" ] &&
        [ "$(text_of "$state/scrubbed" 2>/dev/null)" = "$RPI_IMAGE_HASH" ]; then
        return
    fi
    locked
    was_read_only=0
    if root_is_read_only; then
        was_read_only=1
        on_machine mount -n -o remount,rw / || failure='the root file system cannot be made writable'
    fi
    if [ -z "$failure" ]; then
        install_all
    else
        say "$failure"
        report
    fi
    sync
    if [ "$was_read_only" = 1 ]; then
        on_machine mount -n -o remount,ro / 2>/dev/null
    fi
}

install_all() {
    say "installing $NODE_HOSTNAME ($RPI_IMAGE_HASH)"
    mkdir -p "$root$state" 2>/dev/null
    chmod 700 "$root$state" 2>/dev/null
    rm -f "$root$state"/.*.rpi-image 2>/dev/null
    if [ "$(text_of "$state/installed")" != "$RPI_IMAGE_HASH" ]; then
        steps # of install.parts
        if [ -z "$failure" ]; then
            sync
            step marker set_marker
        fi
    fi
    if [ -z "$failure" ]; then
        open_boot
        step 'secrets on the boot partition' scrub
    fi
    if report && [ -z "$failure" ]; then
        step finish finish
    fi
    start_service
}

# set_marker: everything is set up; what is left is to remove the secrets and to report
set_marker() {
    put "$state/installed" 644 "$RPI_IMAGE_HASH"
    sync
}
