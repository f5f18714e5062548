# The locale; the node script generates it, which takes minutes.
# Reads: LOCALE.
# Writes: /etc/default/locale, /etc/locale.gen.

locale() {
    set_setting /etc/default/locale LANG "LANG=$LOCALE"
    # Hypriot's first boot of 2015 removes the file, and locale-gen needs it
    if [ -f "$root/etc/locale.gen" ] || is_owned row /etc/locale.gen "$(locale_row)"; then
        add_row /etc/locale.gen "$(locale_row)"
    fi
}

# locale_row: print the line of locale.gen(5)
locale_row() {
    case $LOCALE in
        *.*) printf '%s %s' "$LOCALE" "${LOCALE#*.}" ;;
        *) printf '%s ISO-8859-1' "$LOCALE" ;;
    esac
}
