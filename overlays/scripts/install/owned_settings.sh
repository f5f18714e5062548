# What a node owns: the one list. A setting is applied if its value is not empty; otherwise what an
# earlier configuration owned for it is taken back. docs/first-boot.md shows this list.
# Reads: APT_PROXY, DOCKER_OPTS, DOCKER_TLS, KEYBOARD, LOCALE, NETWORK_ADDRESS, NODE_HOSTNAME,
# NTP_SERVER, SHACK_ADDRESS, SHACK_HOSTNAME, TIMEZONE, USER_NAME, WIFI_COUNTRY.
# Writes: /var/lib/rpi-image/owned.new; what the functions that it names write.

# own SETTING WANTED FUNCTION UNDONE VENDOR
# UNDONE: what follows for a configuration without it: `before`, what was there comes back; `gone`,
# it is removed; `always`, every configuration has it.
# VENDOR: `late`, the image's own first boot may write after us; `no`.
owned_settings() {
    own 'node service' always node_service always no
    own hostname "$NODE_HOSTNAME" host_name always late
    own 'name of the shack' "${SHACK_ADDRESS:+$SHACK_HOSTNAME}" shack_name gone no
    # A new identity has removed all host keys; those of the card are installed after it.
    own 'host keys' "$(on_card 'ssh/ssh_host_*_key')" given_host_keys gone late
    # The certificates before the options that refer to them.
    own 'docker TLS' "$(on_card tls/key.pem)${DOCKER_TLS#0}" tls_files before no
    own 'docker options' "$DOCKER_OPTS" docker_options before no
    # The user before the SSH keys in the user's home.
    own login "$USER_NAME" login before late
    own sudo "$USER_NAME" login_sudo gone no
    own 'vendor logins' "$(vendor_logins_locked)" vendor_logins before no
    own 'SSH keys' "$(on_card authorized_keys)" ssh_keys gone late
    own 'SSH service' "$(on_card authorized_keys)$USER_NAME" ssh_service before no
    own wifi "$(on_card 'wifi/*')" wifi before late
    own 'wifi country' "$WIFI_COUNTRY" wifi_country before no
    # After wifi: both may edit /etc/network/interfaces.
    own address "$NETWORK_ADDRESS" address before no
    own 'time zone' "$TIMEZONE" time_zone before late
    own keyboard "$KEYBOARD" keyboard before late
    own locale "$LOCALE" locale before late
    own 'apt proxy' "$APT_PROXY" apt_proxy gone no
    own 'time server' "$NTP_SERVER" ntp_server gone no
    take_back
}

# on_card PATTERN: print the first file of the card that matches and is not empty
on_card() {
    for on_card_file in "$card"/$1; do
        if [ -s "$on_card_file" ]; then
            printf '%s' "$on_card_file"
            return 0
        fi
    done
}
