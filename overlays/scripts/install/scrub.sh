# Removes secrets from the boot partition once they are installed. They are overwritten where they
# are: the clusters of a file that is removed or replaced keep their content. The files keep their
# length, so that a power cut leaves each sector old or new and the file readable. It never touches
# cmdline.txt: without it nothing boots.
# Reads: no setting.
# Writes: on the boot partition rpi-image/node.env, rpi-image/wifi, occidentalis.txt,
# device-init.yaml, private keys; /var/lib/rpi-image/free_due.

# scrub: a flush has to follow, and then remove_wiped
scrub() {
    for secret in "$here"/*.new "$here"/wifi/*.new "$boot"/*.new "$here"/tls/key.pem \
        "$here"/ssh/ssh_host_*_key; do
        [ ! -f "$secret" ] || wipe "$secret"
    done
    wipe_folder "$here/identities.done"
    wipe_folder "$here/next"
    old_and_unfinished | while IFS= read -r secret; do
        wipe "$secret" || exit 1
    done
    overwrite rpi-image/node.env without_secrets
    for profile in "$here"/wifi/*; do
        case $profile in
            # wiped above
            *.rpi-old | *.rpi-new | *.new) ;;
            *) [ ! -f "$profile" ] || overwrite "rpi-image/wifi/${profile##*/}" without_psk ;;
        esac
    done
    if [ -s "$root/etc/wpa_supplicant/wpa_supplicant.conf" ] && [ -s "$here/wifi/wpa_supplicant.conf" ]; then
        overwrite occidentalis.txt without_occidentalis_wifi
        overwrite device-init.yaml without_wifi_member
    fi
}

# remove_wiped: remove the files that hold nothing but zeros now
remove_wiped() {
    rm -rf "$here/identities.done" "$here/next"
    old_and_unfinished | while IFS= read -r secret; do
        rm -f "$secret"
    done
    for secret in "$here"/*.new "$here"/wifi/*.new "$boot"/*.new "$here"/tls/key.pem \
        "$here"/ssh/ssh_host_*_key; do
        [ ! -f "$secret" ] || has_text "$secret" || rm -f "$secret"
    done
}

# old_and_unfinished: list what the installer has replaced, and what `rpi-image apply` left unfinished
# when the card was removed too early
old_and_unfinished() {
    find "$boot" \( -name '*.rpi-old' -o -name '*.rpi-new' \) -type f
}

# mark_free_space: versions before the list of owned settings did not overwrite what they removed, nor
# does finish_apply; the node script clears the free clusters. It is flushed before there is a list.
mark_free_space() {
    # what the node script has left when the power was cut
    rm -f "$here/zeros"
    [ -d "$here/next" ] || { [ -f "$root$state/installed" ] && [ ! -f "$root$state/owned" ]; } || return 0
    note "$state/free_due" "$(now)"
}

# has_text FILE: it does not begin with a zero byte, so it was not overwritten
has_text() {
    [ -n "$(head -c 1 "$1" | tr -d '\000')" ]
}

# wipe FILE: overwrite it with zeros, in its own clusters
wipe() {
    wipe_size=$(($(wc -c <"$1")))
    [ "$wipe_size" = 0 ] ||
        dd if=/dev/zero of="$1" bs="$wipe_size" count=1 conv=notrunc 2>/dev/null || {
        printf 'secrets stay in %s: it cannot be written\n' "${1##*/}" >&2
        return 1
    }
}

wipe_folder() {
    [ -d "$1" ] || return 0
    find "$1" -type f | while IFS= read -r wiped; do
        wipe "$wiped" || exit 1
    done
}

# overwrite PATH FILTER: replace a text by what FILTER makes of it, which must be of equal length
overwrite() {
    [ -f "$boot/$1" ] || return 0
    # a last line without a newline gets one, and $( ) would drop those at the end
    over_new=$({ cat "$boot/$1" && echo; } | "$2" && echo .)
    over_new=${over_new%"$newline".}
    over_size=$(wc -c <"$boot/$1")
    if [ "${#over_new}" = "$((over_size))" ]; then
        printf '%s' "$over_new" | cmp -s - "$boot/$1" && return 0
        printf '%s' "$over_new" | dd of="$boot/$1" conv=notrunc 2>/dev/null && return 0
    fi
    printf 'secrets stay in %s: it cannot be written\n' "$1" >&2
    return 1
}

# fit TEXT LINE: print TEXT with blanks or cut, as long as LINE, and a newline
fit() {
    printf "%-${#2}.${#2}s\n" "$1"
}

# without_secrets: print node.env from stdin without secrets; a value never holds a newline, so
# each is on one line. Its first line, a comment, becomes the mark that the secrets are gone.
without_secrets() {
    while IFS= read -r line; do
        case $line in
            '# Settings of this node'*) fit "RPI_IMAGE_SCRUBBED='1'" "$line" ;;
            USER_PASSWORD_HASH=?* | CONSUL_ENCRYPT=?* | CONSUL_TOKEN=?*) fit "${line%%=*}=''" "$line" ;;
            *) printf '%s\n' "$line" ;;
        esac
    done
}

# without_psk: print a file of wpa_supplicant or NetworkManager without its keys
without_psk() {
    while IFS= read -r line; do
        case ${line#"${line%%[![:space:]]*}"} in
            psk=* | wep[-_]key*=* | *password=* | *passwd=*) fit '#psk=installed' "$line" ;;
            *) printf '%s\n' "$line" ;;
        esac
    done
}

without_occidentalis_wifi() {
    while IFS= read -r line; do
        case $line in
            [Ww][Ii][Ff][Ii]_*=*) fit '# installed' "$line" ;;
            *) printf '%s\n' "$line" ;;
        esac
    done
}

# without_wifi_member: print device-init.yaml from stdin without the top-level key `wifi`
without_wifi_member() {
    member_skip=0
    while IFS= read -r line; do
        case $line in
            wifi:* | '"wifi":'* | "'wifi':"*) member_skip=1 ;;
            [!\ #]*) member_skip=0 ;;
        esac
        if [ "$member_skip" = 0 ]; then
            printf '%s\n' "$line"
        elif [ "${#line}" -lt 11 ]; then
            fit '#' "$line"
        else
            fit '# installed' "$line"
        fi
    done
}
