# Jobs in the background, once per configuration: packages, the upgrade, and the user's own scripts.
# Reads: NODE_HOSTNAME, RPI_IMAGE_HASH, SHACK_ADDRESS, UPGRADE.
# Writes: /var/lib/rpi-image/done, /var/lib/rpi-image/scripts, /var/lib/rpi-image/job_error,
# /var/lib/rpi-image/upgrade, /var/lib/rpi-image/update.log, /run/rpi-image-jobs.pid.

jobs_once() {
    [ "$jobs_started" = 0 ] || return 0
    # They outlive a restart of the service (KillMode=process): a second apt would only disturb.
    ! runs_already "$root/run/rpi-image-jobs.pid" || return 0
    jobs_started=1
    done_folder=$state/done/$RPI_IMAGE_HASH
    rm -f "$state/job_error"
    [ "$UPGRADE" = 1 ] || rm -f "$state/upgrade"
    wanted_packages
    [ -n "$packages_wanted" ] || rm -f "$state/packages"
    (
        if [ -n "$packages_wanted" ] && [ ! -e "$done_folder/packages" ]; then
            sync_time
            install_packages
        fi
        if [ "$UPGRADE" = 1 ] && [ ! -e "$done_folder/upgrade" ]; then
            sync_time
            upgrade
        fi
        for script in "$boot"/rpi-image/scripts/*; do
            own_script "$script"
        done
    ) </dev/null >/dev/null 2>&1 &
    mkdir -p "$root/run"
    printf '%s\n' "$!" >"$root/run/rpi-image-jobs.pid"
}

upgrade() {
    say 'upgrading the packages'
    DEBIAN_FRONTEND=noninteractive
    export DEBIAN_FRONTEND
    on_machine dpkg --configure -a
    update_lists
    if [ "$lists" = gone ]; then
        put "$done_folder/upgrade" 'no archive'
        put "$state/upgrade" "not possible, no archive of this image is left: $lists_fault"
    elif [ "$lists" != failed ] && on_machine apt-get -y -o Dpkg::Options::=--force-confdef \
        -o Dpkg::Options::=--force-confold dist-upgrade; then
        put "$done_folder/upgrade" "$(now)"
        put "$state/upgrade" "done${lists_fault:+, but an archive is gone: $lists_fault}"
    else
        printf 'the package upgrade failed; it is tried again at the next boot\n' >>"$state/job_error"
        put "$state/upgrade" "failed${lists_fault:+: $lists_fault}"
    fi
    say "package upgrade $(content "$state/upgrade")"
}

# update_lists: set $lists to `fetched`, `gone` (the publisher has removed all of them, so trying
# again is useless) or `failed`, and $lists_fault to apt's own line. Its exit code does not tell:
# offline it is 0 (apt-get(8), APT::Update::Error-Mode), and one dead list makes it 100. A suite
# changes its name with each release of Debian, which is no fault (apt-secure(8)).
update_lists() {
    lists=fetched
    lists_log=$state/update.log
    move_archives
    # shellcheck disable=SC2086 # words
    on_machine env LC_ALL=C apt-get $archive_options -o Acquire::AllowReleaseInfoChange::Suite=true update \
        >"$lists_log" 2>&1 || lists=failed
    lists_fault=$(grep '^[EW]: .*Failed to fetch' "$lists_log" | grep -v ' 404 ' | head -n 1)
    if [ -n "$lists_fault" ]; then
        lists=failed
    elif grep -q ' 404 ' "$lists_log"; then
        lists_fault=$(grep -e '^[EW]: .* 404 ' -e '^E: The repository' "$lists_log" | head -n 1)
        lists=gone
        ! grep -q -e '^Get:' -e '^Hit' "$lists_log" || lists=fetched
    fi
}

own_script() {
    script_name=${1##*/}
    [ -n "$boot" ] && [ -f "$1" ] && [ ! -e "$done_folder/scripts/$script_name" ] || return 0
    mkdir -p "$state/scripts"
    cp "$1" "$state/scripts/$script_name"
    chmod 700 "$state/scripts/$script_name"
    say "running scripts/$script_name"
    case $(head -n 1 "$1" | tr -d '\000') in
        '#!'*) set -- "$state/scripts/$script_name" ;;
        *) set -- sh "$state/scripts/$script_name" ;;
    esac
    NODE_HOSTNAME=$NODE_HOSTNAME NODE_ADDRESS=$address SHACK_ADDRESS=$SHACK_ADDRESS \
        "$@" >"$state/scripts/$script_name.log" 2>&1
    script_code=$?
    put "$done_folder/scripts/$script_name" "$script_code"
    [ "$script_code" = 0 ] || {
        printf 'scripts/%s ended with %s\n' "$script_name" "$script_code" >>"$state/job_error"
        say "scripts/$script_name ended with $script_code: $(tail -n 1 "$state/scripts/$script_name.log")"
    }
}
