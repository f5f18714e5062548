# The result of the installation: on the card for people, in $state for the node script.
# Reads: NODE_HOSTNAME, RPI_IMAGE_HASH.
# Writes: on the boot partition rpi-image/install.log, status, status.json;
# /var/log/rpi-image.log, /var/lib/rpi-image/install_time, install_result, install_warning.

# report: a flush has to follow, and then boot_finish
report() {
    report_time=$(now)
    if [ -n "$failure" ]; then
        report_install="failed: $failure"
        report_line="$NODE_HOSTNAME: the installation FAILED ($report_time): $failure
It is tried again at the next boot. More in rpi-image/install.log."
        report_installed=null
    else
        report_install=ok
        report_line="$NODE_HOSTNAME: installed ($report_time)${warning:+; $warning}"
        report_installed=$(json "$report_time")
    fi
    report_json="{\"hostname\": $(json "$NODE_HOSTNAME"), \"hash\": $(json "$RPI_IMAGE_HASH"),
 \"installed\": $report_installed, \"install\": $(json "$report_install"),
 \"booted\": null, \"address\": \"\", \"arch\": $(json "$(uname -m 2>/dev/null)"),
 \"docker\": \"\", \"consul\": \"\", \"swarm\": \"\",
 \"error\": $(json "${failure:-$warning}"), \"updated\": $(json "$report_time")}"
    {
        note "$state/install_time" "$([ -n "$failure" ] || printf '%s' "$report_time")"
        note "$state/install_result" "$report_install"
        note "$state/install_warning" "$warning"
        mkdir -p "$root/var/log" && printf '%s %s\n' "$report_time" "$log_text" >>"$root/var/log/rpi-image.log"
    } >/dev/null 2>&1
    open_boot
    if ! writable "$here"; then
        say "the boot partition cannot be written: no status on it"
        return 1
    fi
    {
        boot_prepare rpi-image/install.log "$(printf '%s\n%s' "$report_time" "$log_text" | tail -c 16000)" &&
            boot_prepare rpi-image/status "$report_line" &&
            boot_prepare rpi-image/status.json "$report_json"
    } 2>/dev/null
}
