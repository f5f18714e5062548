# The keyboard layout; the node script loads it (setupcon).
# Reads: KEYBOARD.
# Writes: /etc/default/keyboard.

keyboard() {
    [ -n "$KEYBOARD" ] || return 0
    if [ ! -f "$root/etc/default/keyboard" ]; then
        put /etc/default/keyboard 644 'XKBMODEL="pc105"
XKBLAYOUT=""
XKBVARIANT=""
XKBOPTIONS=""
BACKSPACE="guess"'
    fi
    keyboard_before=$(text_of /etc/default/keyboard)
    set_setting /etc/default/keyboard XKBLAYOUT "XKBLAYOUT=\"$KEYBOARD\""
    [ "$keyboard_before" = "$(text_of /etc/default/keyboard)" ] || later keyboard
}
