# Sudo without a password, for a user who has none to give.
# Reads: USER_GROUPS, USER_NAME, USER_PASSWORD_HASH.
# Writes: /etc/sudoers.d/090_rpi-image.

login_sudo() {
    [ -z "$USER_PASSWORD_HASH" ] && [ -d "$root/etc/sudoers.d" ] || return 0
    case " $USER_GROUPS " in
        *' sudo '*) put /etc/sudoers.d/090_rpi-image 440 "$USER_NAME ALL=(ALL) NOPASSWD: ALL" ;;
    esac
}
