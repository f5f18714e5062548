# The keyboard layout; the node script loads it (setupcon).
# Reads: KEYBOARD.
# Writes: /etc/default/keyboard.

keyboard() {
    if [ ! -f "$root/etc/default/keyboard" ] || is_owned file /etc/default/keyboard; then
        put /etc/default/keyboard 644 "XKBMODEL=\"pc105\"
XKBLAYOUT=\"$KEYBOARD\"
XKBVARIANT=\"\"
XKBOPTIONS=\"\"
BACKSPACE=\"guess\""
    fi
    set_setting /etc/default/keyboard XKBLAYOUT "XKBLAYOUT=\"$KEYBOARD\""
}
