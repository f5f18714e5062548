# Docker images: from tarballs on the card, from the registry of the shack, or from the Internet.
# Reads: REGISTRY_ADDRESS.
# Writes: /var/lib/rpi-image/loaded.

has_image() {
    limit 60 docker inspect "$1" >/dev/null 2>&1
}

# load_tarballs [again]: load every tarball of the card once; with `again` all of them
load_tarballs() {
    [ -n "$boot" ] || return 0
    for tarball in "$boot"/rpi-image/images/*.tar*; do
        [ -s "$tarball" ] || continue
        loaded=$state/loaded/${tarball##*/}.$(wc -c <"$tarball" | tr -d ' ')
        [ ! -e "$loaded" ] || [ "${1-}" = again ] || continue
        say "loading ${tarball##*/}"
        tell "loading ${tarball##*/}"
        if limit 1800 docker load -i "$tarball" >/dev/null 2>&1; then
            put "$loaded" "$(now)"
        else
            say "${tarball##*/} could not be loaded"
        fi
    done
}

# has_port IMAGE: its name starts with HOST:PORT, so no other registry can serve it
has_port() {
    case ${1%%/*} in
        "$1") return 1 ;;
        *:*) return 0 ;;
    esac
    return 1
}

# pull IMAGE: try three times, each time the shack's registry first
pull() {
    tries=0
    while [ "$tries" -lt 3 ]; do
        [ "$tries" = 0 ] || sleep $((pause_seconds * tries))
        tries=$((tries + 1))
        say "pulling $1 (try $tries)"
        if [ -n "$REGISTRY_ADDRESS" ] && ! has_port "$1"; then
            if pull_words=$(limit 1800 docker pull "$REGISTRY_ADDRESS/$1" 2>&1) &&
                limit 60 docker tag "$REGISTRY_ADDRESS/$1" "$1" >/dev/null 2>&1; then
                return 0
            fi
        fi
        if other_words=$(limit 1800 docker pull "$1" 2>&1); then
            return 0
        fi
        pull_words=${pull_words:-$other_words}
    done
    pull_words=$(printf '%s' "$pull_words" | tail -n 1)
    fail "the image $1 could not be pulled: $pull_words"
}

images() {
    load_tarballs
    images_done=0
    for image; do
        images_done=$((images_done + 1))
        has_image "$image" && continue
        load_tarballs again
        has_image "$image" && continue
        pull_words=
        tell "pulling $(short_name "$image")" "$(((images_done - 1) * 100 / $#))"
        pull "$image" || return 1
    done
}
