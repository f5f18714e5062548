# The packages of the settings, and Docker where the image has none: from the card or the shack by
# dpkg alone, else by the Pi's own apt.
# Reads: DOCKER_INSTALL, DOCKER_VERSION, PACKAGES, RPI_IMAGE_HASH, SHACK_ADDRESS, WEB_PORT.
# Writes: /var/lib/rpi-image/debs, /var/lib/rpi-image/done, /var/lib/rpi-image/packages, /var/lib/rpi-image/job_error,
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

# is_carried: the card has all of the packages that it lists
is_carried() {
    carried=$boot/rpi-image/packages
    [ -n "$boot" ] && [ -s "$carried/SHA256SUMS" ] || return 1
    while read -r _ carried_name; do
        [ -s "$carried/$carried_name" ] || return 1
    done <"$carried/SHA256SUMS"
}

# carried_once: packages of the card need no network
carried_once() {
    [ "$carried_started" = 0 ] && is_carried || return 0
    done_folder=$state/done/$RPI_IMAGE_HASH
    wanted_packages
    if [ -z "$packages_wanted" ] || [ -e "$done_folder/packages" ]; then
        # a power cut came before they were removed
        drop_carried
        return 0
    fi
    ! runs_already "$root/run/rpi-image-jobs.pid" || return 0
    carried_started=1
    say "installing $packages_wanted from the card"
    put "$state/packages" installing
    (
        install_debs "$carried" && packages_are_there
    ) </dev/null >/dev/null 2>&1 &
    mkdir -p "$root/run"
    printf '%s\n' "$!" >"$root/run/rpi-image-jobs.pid"
}

# install_debs FOLDER: install those that the card lists, after a look at their digests. dpkg does
# not sort by Pre-Depends (dpkg(1)): what it refuses in one round has what it needs in the next.
install_debs() {
    packages_log=$state/packages.log
    (cd "$1" && sha256sum -c "$boot/rpi-image/packages/SHA256SUMS") >"$packages_log" 2>&1 || {
        packages_fault="a package has another digest: $(grep -v ': OK$' "$packages_log" | head -n 1)"
        say "$packages_fault"
        return 1
    }
    DEBIAN_FRONTEND=noninteractive
    export DEBIAN_FRONTEND
    on_machine dpkg --configure -a
    debs_tries=0
    # names of packages have no spaces, wildcards or quotes (deb-control(5), deb-version(7))
    # shellcheck disable=SC2046 # a list
    until (cd "$1" && on_machine dpkg --force-confdef --force-confold -i $(cut -c 67- "$boot/rpi-image/packages/SHA256SUMS")) >"$packages_log" 2>&1; do
        debs_tries=$((debs_tries + 1))
        [ "$debs_tries" -lt 3 ] || {
            packages_fault=$(grep '^dpkg: error' "$packages_log" | head -n 1)
            say "dpkg failed: $packages_fault"
            return 1
        }
    done
}

# debs_from_shack: fetch those that the card lists, where it has no room for them
debs_from_shack() {
    [ -n "$boot" ] && [ -s "$boot/rpi-image/packages/SHA256SUMS" ] && [ -n "$SHACK_ADDRESS" ] || return 1
    mkdir -p "$state/debs"
    while read -r _ deb_name; do
        [ ! -s "$state/debs/$deb_name" ] || continue
        http_save "http://$(in_url "$SHACK_ADDRESS"):${WEB_PORT:-8080}/packages/$deb_name" \
            "$state/debs/$deb_name" || {
            say "the shack has no package $deb_name"
            return 1
        }
    done <"$boot/rpi-image/packages/SHA256SUMS"
    install_debs "$state/debs" || {
        # a file that was cut off would stay so
        rm -rf "$state/debs"
        return 1
    }
}

# packages_are_there: first the mark, then the files: after a power cut they are only removed
packages_are_there() {
    case $packages_wanted in
        docker.io*) put "$state/docker_installed" "$(now)" ;;
    esac
    put "$done_folder/packages" "$(now)"
    sync
    drop_carried
    put "$state/packages" "done"
}

drop_carried() {
    rm -rf "$state/debs"
    [ -n "$boot" ] && [ -d "$boot/rpi-image/packages" ] || return 0
    on_machine mount -n -o remount,rw "${boot#"$root"}" >/dev/null 2>&1
    rm -rf "$boot/rpi-image/packages"
    sync
}

# after a power cut dpkg ends its work first
install_packages() {
    say "installing $packages_wanted"
    DEBIAN_FRONTEND=noninteractive
    export DEBIAN_FRONTEND
    put "$state/packages" installing
    if debs_from_shack; then
        packages_are_there
        return 0
    fi
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
    packages_are_there
}

packages_once() {
    packages_log=$state/packages.log
    on_machine dpkg --configure -a
    update_lists
    # shellcheck disable=SC2086 # a list
    if on_machine env LC_ALL=C apt-get -y -o Acquire::Retries=3 \
        -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold \
        install $packages_wanted >"$packages_log" 2>&1; then
        return 0
    fi
    packages_fault=$(grep '^E: ' "$packages_log" | head -n 1)
    packages_fault=${lists_fault:-${packages_fault:-apt-get failed}}
    return 1
}
