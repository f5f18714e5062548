# The locale; the node script generates it, which takes minutes.
# Reads: LOCALE.
# Writes: /etc/default/locale, /etc/locale.gen.

locale() {
    [ -n "$LOCALE" ] || return 0
    set_setting /etc/default/locale LANG "LANG=$LOCALE"
    if [ -f "$root/etc/locale.gen" ]; then
        case $LOCALE in
            *.*) locale_line="$LOCALE ${LOCALE#*.}" ;;
            *) locale_line="$LOCALE ISO-8859-1" ;;
        esac
        grep -q -x -F -e "$locale_line" "$root/etc/locale.gen" || {
            edit /etc/locale.gen 644 "$(text_of /etc/locale.gen)
$locale_line"
            later locale
        }
    fi
}
