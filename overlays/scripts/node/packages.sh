# The packages of the settings, and Docker where the image has none, by the Pi's own apt.
# Reads: DOCKER_INSTALL, DOCKER_VERSION, PACKAGES.
# Writes: /var/lib/rpi-image/done, /var/lib/rpi-image/packages, /var/lib/rpi-image/job_error,
# /var/lib/rpi-image/packages.log, /var/lib/rpi-image/docker_installed.

# wanted_packages: set $packages_wanted to what apt-get is to install
wanted_packages() {
    packages_wanted=$PACKAGES
    case $DOCKER_INSTALL in
        always) ;;
        # ours stays ours
        auto) ! has docker || [ -e "$state/docker_installed" ] || return 0 ;;
        *) return 0 ;;
    esac
    packages_wanted="docker.io${DOCKER_VERSION:+=$DOCKER_VERSION*} $PACKAGES"
}

# after a power cut dpkg ends its work first
install_packages() {
    say "installing $packages_wanted"
    DEBIAN_FRONTEND=noninteractive
    export DEBIAN_FRONTEND
    put "$state/packages" installing
    packages_tries=0
    until packages_once; do
        packages_tries=$((packages_tries + 1))
        if [ "$lists" = gone ] || [ "$packages_tries" -ge 5 ]; then
            put "$state/packages" "failed: $packages_fault"
            printf 'packages are missing: %s\n' "$packages_fault" >>"$state/job_error"
            say "packages failed: $packages_fault"
            return 0
        fi
        sleep "$(back_off "$packages_tries")"
    done
    put "$done_folder/packages" "$(now)"
    put "$state/packages" "done"
}

packages_once() {
    packages_log=$state/packages.log
    on_machine dpkg --configure -a
    update_lists
    # shellcheck disable=SC2086 # a list
    if on_machine env LC_ALL=C apt-get -y -o Acquire::Retries=3 \
        -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold \
        install $packages_wanted >"$packages_log" 2>&1; then
        case $packages_wanted in
            docker.io*) put "$state/docker_installed" "$(now)" ;;
        esac
        return 0
    fi
    packages_fault=$(grep '^E: ' "$packages_log" | head -n 1)
    packages_fault=${lists_fault:-${packages_fault:-apt-get failed}}
    return 1
}
