# Removes secrets from the boot partition once they are installed. It never touches cmdline.txt:
# without it nothing boots.
# Reads: no setting.
# Writes: on the boot partition rpi-image/node.env, rpi-image/wifi, occidentalis.txt,
# device-init.yaml; removes private keys.

scrub() {
    rm -f "$here"/*.new "$here"/wifi/*.new "$boot"/occidentalis.txt.new "$boot"/device-init.yaml.new
    for secret in "$here"/tls/key.pem "$here"/ssh/ssh_host_*_key; do
        [ ! -f "$secret" ] || rm -f "$secret"
    done
    scrub_file rpi-image/node.env without_secrets
    for profile in "$here"/wifi/*; do
        [ ! -f "$profile" ] || scrub_file "rpi-image/wifi/${profile##*/}" without_psk
    done
    if [ -s "$root/etc/wpa_supplicant/wpa_supplicant.conf" ] && [ -s "$here/wifi/wpa_supplicant.conf" ]; then
        scrub_file occidentalis.txt without_occidentalis_wifi
        scrub_file device-init.yaml without_wifi_member
    fi
    sync
}

# without_secrets: print node.env from stdin without secrets; a value never holds a newline, so
# each is on one line
without_secrets() {
    sed -e "s/^\\(USER_PASSWORD_HASH\\|CONSUL_ENCRYPT\\)=.*/\\1=''/" -e '/^RPI_IMAGE_SCRUBBED=/d'
    printf "RPI_IMAGE_SCRUBBED='1'\n"
}

# without_psk: print a file of wpa_supplicant or NetworkManager without its keys
without_psk() {
    sed 's/^\([[:space:]]*\)\(psk\|wep-key[0-9]*\|wep_key[0-9]*\|password\)[[:space:]]*=.*/\1#\2=installed/'
}

without_occidentalis_wifi() {
    sed 's/^[Ww][Ii][Ff][Ii]_\([A-Za-z]*\)=.*/# wifi is installed (rpi-image)/'
}

# without_wifi_member: print device-init.yaml from stdin without the top-level key `wifi`
without_wifi_member() {
    member_skip=0
    while IFS= read -r line || [ -n "$line" ]; do
        case $line in
            wifi:* | '"wifi":'* | "'wifi':"*)
                member_skip=1
                printf '# wifi is installed (rpi-image)\n'
                ;;
            [!\ #]*)
                member_skip=0
                printf '%s\n' "$line"
                ;;
            *) [ "$member_skip" = 1 ] || printf '%s\n' "$line" ;;
        esac
    done
}
