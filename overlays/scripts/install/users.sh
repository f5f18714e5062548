# The user: login, password, groups and sudo.
# Reads: RPI_IMAGE_SCRUBBED, USER_GROUPS, USER_NAME, USER_PASSWORD_HASH.
# Writes: /etc/passwd, /etc/shadow, /etc/group, /etc/gshadow, /home, /etc/sudoers.d/090_rpi-image.

login() {
    if [ -n "$USER_NAME" ]; then
        login_user
    fi
    login_sudo
}

login_user() {
    if [ -z "$(entry passwd "$USER_NAME")" ]; then
        login_vendor || login_new
    fi
    login_password
    for group in $USER_GROUPS; do
        login_group "$group"
    done
}

# login_sudo: sudo cannot ask a user without a password for it. On a card without its secrets it is
# unknown whether there is one, so nothing changes.
login_sudo() {
    [ -z "$RPI_IMAGE_SCRUBBED" ] || return 0
    sudoers=
    if [ -n "$USER_NAME" ] && [ -z "$USER_PASSWORD_HASH" ] && [ -d "$root/etc/sudoers.d" ]; then
        case " $USER_GROUPS " in
            *' sudo '*) sudoers="$USER_NAME ALL=(ALL) NOPASSWD: ALL" ;;
        esac
    fi
    if [ -n "$sudoers" ]; then
        put /etc/sudoers.d/090_rpi-image 440 "$sudoers"
    else
        drop /etc/sudoers.d/090_rpi-image
    fi
}

# login_vendor: let Raspberry Pi OS rename its first user; this also ends its first-boot dialogue
login_vendor() {
    [ -x "$root/usr/lib/userconf-pi/userconf" ] && [ -n "$USER_PASSWORD_HASH" ] && is_systemd_running || return 1
    on_machine limit 60 "$root/usr/lib/userconf-pi/userconf" "$USER_NAME" "$USER_PASSWORD_HASH" || return 1
    [ -n "$(entry passwd "$USER_NAME")" ]
}

login_new() {
    login_shell=/bin/sh
    [ ! -x "$root/bin/bash" ] || login_shell=/bin/bash
    if [ -z "$(entry group "$USER_NAME")" ]; then
        set_entry group 644 "$USER_NAME" "$USER_NAME:x:$(free_id):"
    fi
    group_shadow "$USER_NAME" ''
    login_gid=$(entry group "$USER_NAME")
    login_gid=${login_gid#*:*:}
    login_gid=${login_gid%%:*}
    # the group may exist from a run that was cut short
    login_id=$login_gid
    ! grep -q -e "^[^:]*:[^:]*:$login_id:" "$root/etc/passwd" && [ "$login_id" -ge 1000 ] || login_id=$(free_id)
    set_entry passwd 644 "$USER_NAME" \
        "$USER_NAME:x:$login_id:$login_gid:,,,:/home/$USER_NAME:$login_shell"
}

login_password() {
    login_line=$(entry passwd "$USER_NAME")
    login_home=$(home_of "$login_line")
    if [ ! -d "$root$login_home" ]; then
        mkdir -p "$root$login_home"
        for skeleton in "$root"/etc/skel/.[!.]* "$root"/etc/skel/*; do
            [ ! -e "$skeleton" ] || cp -R "$skeleton" "$root$login_home/"
        done
        chmod 755 "$root$login_home"
        chown -R "$(owner_of "$login_line")" "$root$login_home"
    fi
    login_days=$((RPI_IMAGE_BUILT / 86400))
    login_old=$(entry shadow "$USER_NAME")
    if [ -z "$login_old" ]; then
        set_entry shadow 640 "$USER_NAME" "$USER_NAME:${USER_PASSWORD_HASH:-!}:$login_days:0:99999:7:::"
    elif [ -n "$USER_PASSWORD_HASH" ]; then
        case $login_old in
            "$USER_NAME:$USER_PASSWORD_HASH:"*) return 0 ;;
        esac
        login_rest=${login_old#*:*:}
        set_entry shadow 640 "$USER_NAME" "$USER_NAME:$USER_PASSWORD_HASH:$login_days:${login_rest#*:}"
    fi
}

login_group() {
    login_line=$(entry group "$1")
    if [ -z "$login_line" ]; then
        [ "$1" = docker ] || {
            printf 'warning: there is no group %s on this image\n' "$1" >&2
            return 0
        }
        login_line=docker:x:$(free_id):
    fi
    set_entry group 644 "$1" "$(with_member "$login_line")"
    group_shadow "$1" "$USER_NAME"
}
