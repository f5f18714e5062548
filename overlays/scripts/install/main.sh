# One run of the installer. Each step runs in a subshell under `set -e`; its last line on stderr is
# the reason of a failure.
# Reads: NODE_HOSTNAME, RPI_IMAGE_HASH.
# Writes: /var/lib/rpi-image/installed, /var/lib/rpi-image/installed_boot, /var/lib/rpi-image/scrubbed.

# step LABEL FUNCTION WORDS...: run one step; a failure does not stop the others
step() {
    step_label=$1
    shift
    words=$(
        set -e
        "$@" 2>&1
    )
    step_code=$?
    if [ -n "$words" ]; then
        say "$step_label: $words"
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
        say "$step_label: failed ($step_code)"
        failure="${failure:+$failure; }$step_label: ${reason:-exit code $step_code}"
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
    case ${1-} in
        again | docker) again=1 ;;
    esac
    finish_apply "$@"
    if [ ! -f "$here/node.env" ] && [ -f "$here/node.env.rpi-old" ]; then
        mv -f "$here/node.env.rpi-old" "$here/node.env"
    fi
    # a file with a syntax error would end this shell: try it in another one first
    # shellcheck source=/dev/null
    if [ ! -r "$here/node.env" ] || ! (. "$here/node.env" && [ -n "$RPI_IMAGE_HASH" ]) >/dev/null 2>&1; then
        failure='rpi-image/node.env is missing or broken'
        say "$failure"
        end_failed
        return
    fi
    if [ -d "$here/identities" ] && [ -z "$again" ]; then
        locked
        claim
    fi
    # shellcheck source=/dev/null
    . "$here/node.env"
    if [ -z "$again" ] && is_installed; then
        return
    fi
    choose_card
    name_unclaimed
    locked
    if [ -n "$again" ]; then
        look_again
    else
        install
    fi
}

is_installed() {
    [ ! -d "$here/identities.done" ] &&
        [ "$(text_of "$state/installed" 2>/dev/null)" = "$RPI_IMAGE_HASH" ] &&
        [ "$(text_of "$state/scrubbed" 2>/dev/null)" = "$RPI_IMAGE_HASH" ]
}

install() {
    was_read_only=0
    if root_is_read_only; then
        was_read_only=1
        on_machine mount -n -o remount,rw / || failure='the root file system cannot be made writable'
    fi
    if [ -z "$failure" ]; then
        install_all
    else
        say "$failure"
        end_failed
    fi
    if [ "$was_read_only" = 1 ]; then
        on_machine mount -n -o remount,ro / 2>/dev/null
    fi
}

# end_failed: say so on the card; the next boot tries again
end_failed() {
    report && sync && boot_finish
    sync
}

install_all() {
    say "installing $NODE_HOSTNAME ($RPI_IMAGE_HASH)"
    start_clean
    mark_free_space
    if [ "$(text_of "$state/installed")" != "$RPI_IMAGE_HASH" ]; then
        step card take_card
        steps # of install.parts
        rm -f "$root$state/part"
        if [ -z "$failure" ]; then
            step marker set_marker
        fi
        # everything is set up, and on the card, before the first secret is overwritten
        sync
    fi
    if [ -z "$failure" ]; then
        open_boot
        step 'secrets on the boot partition' scrub
    fi
    if [ -z "$failure" ]; then
        step 'name of the board' native_name
    fi
    if report; then
        sync
        finish
    fi
    sync
    start_service
}

# set_marker: everything is set up; the node script asks in which boot
set_marker() {
    note "$state/installed_boot" "$(cat "$root/proc/sys/kernel/random/boot_id" 2>/dev/null)"
    note "$state/installed" "$RPI_IMAGE_HASH"
}

# finish: with the secrets overwritten, make further runs with this configuration return at once
finish() {
    boot_finish || return 0
    [ -z "$failure" ] || return 0
    remove_wiped
    step finish note "$state/scrubbed" "$RPI_IMAGE_HASH"
}

# start_clean: remove what a run has left that was cut short
start_clean() {
    mkdir -p "$root$state" 2>/dev/null
    chmod 700 "$root$state" 2>/dev/null
    rm -rf "$root${state:?}/new" "$root${state:?}/card.new" 2>/dev/null
    rm -f "$root$state/part" "$root$state/owned.new" "$root$state/owned.both" 2>/dev/null
}
