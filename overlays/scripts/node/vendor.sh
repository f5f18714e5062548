# The image's own first boot, which may write after the installer: it sets a time zone, a locale, a
# name, host keys. Until it is over, each pass looks at every owned setting again.
# Reads: RPI_IMAGE_HASH.
# Writes: /var/lib/rpi-image/vendor_done; what the installer corrects.

# after_vendor: correct what has changed. The image's first boot is over once a later boot than that
# of the installation is up, and two looks at it find nothing.
after_vendor() {
    [ -n "$boot" ] || return 0
    [ "$(content "$state/vendor_done")" != "$RPI_IMAGE_HASH" ] || return 0
    corrected=$(limit 300 env RPI_IMAGE_CALLER=node sh "$boot/rpi-image/install" again 2>/dev/null)
    if [ -n "$corrected" ]; then
        quiet_looks=0
        say "corrected what was changed after the installation:$corrected"
        return 0
    fi
    [ "$(cat "$root/proc/sys/kernel/random/boot_id" 2>/dev/null)" != "$(content "$state/installed_boot")" ] || return 0
    is_boot_over || return 0
    quiet_looks=$((quiet_looks + 1))
    [ "$quiet_looks" -lt 2 ] || put "$state/vendor_done" "$RPI_IMAGE_HASH"
}

is_boot_over() {
    is_systemd_running || return 0
    case $(on_machine limit 20 systemctl is-system-running 2>/dev/null) in
        initializing | starting) return 1 ;;
    esac
}
