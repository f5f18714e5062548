# The configuration: on the boot partition until its secrets are removed from there, then in $state.
# Reads: RPI_IMAGE_HASH, RPI_IMAGE_SCRUBBED.
# Writes: /var/lib/rpi-image/card.new, which put_in_place renames to card.

# choose_card: set $card to the folder with the whole configuration
choose_card() {
    [ -n "$RPI_IMAGE_SCRUBBED$again" ] || return 0
    if grep -q -F -e "$RPI_IMAGE_HASH" "$root$state/card/node.env" 2>/dev/null; then
        card=$root$state/card
        # shellcheck source=/dev/null
        . "$card/node.env"
    elif [ -n "$RPI_IMAGE_SCRUBBED" ]; then
        failure='another system removed the secrets from this card: write the card again'
    fi
}

# take_card: keep a copy that only root can read
take_card() {
    [ "$card" = "$here" ] || return 0
    rm -rf "$root${state:?}/card.new"
    (
        umask 077
        mkdir -p "$root$state/card.new"
        for card_part in node.env authorized_keys wifi network tls ssh; do
            [ ! -e "$here/$card_part" ] || cp -R "$here/$card_part" "$root$state/card.new/" || exit 1
        done
    )
    chmod -R go-rwx "$root$state/card.new"
    ! diff_card || rm -rf "$root$state/card.new"
}

# diff_card: the copy in $state is the same already
diff_card() {
    (
        cd "$root$state/card.new" || exit 1
        [ "$(find . -type f | wc -l)" = "$(cd "$root$state/card" 2>/dev/null && find . -type f | wc -l)" ] || exit 1
        find . -type f | while IFS= read -r card_part; do
            cmp -s "$card_part" "$root$state/card/$card_part" || exit 1
        done
    )
}
