# The status: in $state, on the card and on the LED.
# Reads: NODE_HOSTNAME, RPI_IMAGE_HASH.
# Writes: /var/lib/rpi-image/status.json; on the boot partition rpi-image/node.log, status,
# status.json.

# light error|ok: blink the activity LED, if the board has one
light() {
    [ "$1" != "$light_now" ] || return 0
    light_now=$1
    for led in "$root"/sys/class/leds/led0 "$root"/sys/class/leds/ACT; do
        [ -w "$led/trigger" ] || continue
        if [ "$1" = error ]; then
            printf timer >"$led/trigger"
            printf 120 >"$led/delay_on"
            printf 880 >"$led/delay_off"
        else
            printf mmc0 >"$led/trigger"
        fi
    done
} 2>/dev/null

# write_status: write only if more than the time has changed; cards wear out
write_status() {
    problem=$error
    [ -n "$problem" ] || problem=$(head -n 1 "$state/job_error" 2>/dev/null)
    [ -n "$problem" ] || problem=$mismatch
    [ -n "$problem" ] || problem=$(content "$state/install_warning")
    install_result=$(content "$state/install_result")
    install_time=$(content "$state/install_time")
    case $install_result in
        failed*) problem=${problem:-$install_result} ;;
    esac
    installed=null
    [ -z "$install_time" ] || installed=$(json "$install_time")
    fields="\"hostname\": $(json "$NODE_HOSTNAME"), \"hash\": $(json "$RPI_IMAGE_HASH"),
 \"installed\": $installed, \"install\": $(json "$install_result"),
 \"booted\": $(json "$booted"), \"address\": $(json "$address"), \"arch\": $(json "$(uname -m)"),
 \"docker\": $(json "$docker_state"), \"consul\": $(json "$consul_state"), \"swarm\": $(json "$swarm_state"),
 \"packages\": $(json "$(content "$state/packages")"),
 \"upgrade\": $(json "$(content "$state/upgrade")"), \"error\": $(json "$problem")"
    if [ "$problem" = '' ]; then
        light ok
    else
        light error
    fi
    [ "$fields" != "$fields_written" ] || return 0
    status_json="{$fields, \"updated\": $(json "$(now)")}"
    status_words="$NODE_HOSTNAME at ${address:-no address yet}: docker ${docker_state:-not ready}, consul ${consul_state:-not started}, swarm ${swarm_state:-not joined}
installed ${install_time:-never}, started $booted"
    [ ! -s "$state/upgrade" ] || status_words="$status_words
package upgrade $(content "$state/upgrade")"
    [ ! -s "$state/packages" ] || status_words="$status_words
packages $(content "$state/packages")"
    [ -z "$problem" ] || status_words="$status_words
ERROR: $problem"
    put "$state/status.json" "$status_json"
    fields_written=$fields
    card_status || fields_written=
} 2>/dev/null

# card_status: fail while the free space is overwritten; a file that comes and goes meanwhile would
# keep its clusters from it. Else write what `rpi-image inspect` shows when the card is back in a reader
card_status() {
    [ -n "$boot" ] || return 0
    ! is_filling || return 1
    (: >"$boot/rpi-image/.try") || on_machine mount -n -o remount,rw "${boot#"$root"}"
    rm -f "$boot/rpi-image/.try"
    card=$boot/rpi-image
    if tail -n 100 "$log" | tail -c 12000 >"$card/node.log.new" &&
        printf '%s\n' "$status_words" >"$card/status.new" &&
        printf '%s\n' "$status_json" >"$card/status.json.new"; then
        # FAT has no journal: first the content, then the names
        sync
        for card_file in node.log status status.json; do
            mv -f "$card/$card_file.new" "$card/$card_file"
        done
        sync
    else
        rm -f "$card/node.log.new" "$card/status.new" "$card/status.json.new"
        return 1
    fi
}
