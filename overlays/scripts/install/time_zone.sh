# The time zone.
# Reads: TIMEZONE.
# Writes: /etc/timezone, /etc/localtime.

time_zone() {
    [ -f "$root/usr/share/zoneinfo/$TIMEZONE" ] || {
        printf 'the time zone %s is not on this image\n' "$TIMEZONE" >&2
        return 1
    }
    put /etc/timezone 644 "$TIMEZONE"
    link "/usr/share/zoneinfo/$TIMEZONE" /etc/localtime
}
