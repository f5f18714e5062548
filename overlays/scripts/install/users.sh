# The user: login, password and groups.
# Reads: NODE_GENERATION, USER_GROUPS, USER_NAME, USER_PASSWORD_HASH.
# Writes: /etc/passwd, /etc/shadow, /etc/group, /etc/gshadow, /home.

login() {
    if [ -z "$(entry passwd "$USER_NAME")" ]; then
        login_vendor || login_new
    elif [ "$NODE_GENERATION" = cloud-init ] && ! is_vendor_login "$USER_NAME"; then
        login_of_cloud_init
    fi
    login_home
    login_password
    login_dialogue
    for group in $USER_GROUPS; do
        login_group "$group"
    done
}

# login_vendor: let Raspberry Pi OS rename its first user; this also ends its first-boot dialogue
login_vendor() {
    [ -x "$root/usr/lib/userconf-pi/userconf" ] && [ -n "$USER_PASSWORD_HASH" ] && is_systemd_running || return 1
    on_machine limit 60 "$root/usr/lib/userconf-pi/userconf" "$USER_NAME" "$USER_PASSWORD_HASH" || return 1
    [ -n "$(entry passwd "$USER_NAME")" ]
}

# login_dialogue: userconf ends Raspberry Pi OS' dialogue on the console, and takes down the banner
# of its SSH server, only for a user with a password
login_dialogue() {
    [ -z "$USER_PASSWORD_HASH" ] && [ -x "$root/usr/bin/cancel-rename" ] && is_systemd_running || return 0
    [ -e "$root/etc/ssh/sshd_config.d/rename_user.conf" ] ||
        [ -e "$root/etc/systemd/system/multi-user.target.wants/userconfig.service" ] || return 0
    on_machine limit 60 "$root/usr/bin/cancel-rename" "$USER_NAME" >/dev/null 2>&1 ||
        printf 'warning: the dialogue of the first boot could not be ended\n' >&2
}

# login_of_cloud_init: cloud-init has made this user from our user-data, so it is ours
login_of_cloud_init() {
    for login_file in passwd shadow group gshadow; do
        [ -f "$root/etc/$login_file" ] || continue
        [ -n "$(entry "$login_file" "$USER_NAME")" ] || continue
        record entry "/etc/$login_file" "$USER_NAME"
        # it was not there before us
        rm -f "$root$state/before/$(id_of entry "/etc/$login_file" "$USER_NAME")"
    done
}

login_new() {
    login_shell=/bin/sh
    [ ! -x "$root/bin/bash" ] || login_shell=/bin/bash
    login_line=$(entry group "$USER_NAME")
    set_entry group 644 "$USER_NAME" "${login_line:-$USER_NAME:x:$(free_id "$USER_NAME"):}"
    if [ -f "$root/etc/gshadow" ]; then
        login_line=$(entry gshadow "$USER_NAME")
        set_entry gshadow 640 "$USER_NAME" "${login_line:-$USER_NAME:!::}"
    fi
    login_gid=$(entry group "$USER_NAME")
    login_gid=${login_gid#*:*:}
    login_gid=${login_gid%%:*}
    # the group may exist from a run that was cut short
    login_id=$login_gid
    now_at /etc/passwd
    ! grep -q -e "^[^:]*:[^:]*:$login_id:" "$found" && [ "$login_id" -ge 1000 ] ||
        login_id=$(free_id "$USER_NAME")
    set_entry passwd 644 "$USER_NAME" \
        "$USER_NAME:x:$login_id:$login_gid:,,,:/home/$USER_NAME:$login_shell"
}

login_home() {
    for login_file in group gshadow passwd; do
        is_owned entry "/etc/$login_file" "$USER_NAME" || continue
        set_entry "$login_file" 644 "$USER_NAME" "$(entry "$login_file" "$USER_NAME")"
    done
    login_line=$(entry passwd "$USER_NAME")
    login_home=$(home_of "$login_line")
    [ ! -d "$root$login_home" ] || return 0
    # complete before it gets its name
    login_new_home=$root$login_home.rpi-image
    rm -rf "$login_new_home"
    mkdir -p "$login_new_home"
    for skeleton in "$root"/etc/skel/.[!.]* "$root"/etc/skel/*; do
        [ ! -e "$skeleton" ] || cp -R "$skeleton" "$login_new_home/"
    done
    chmod 755 "$login_new_home"
    give_to "$(owner_of "$login_line")" -R "$login_new_home"
    mv "$login_new_home" "$root$login_home"
}

# login_password: once the user can log in, the password is the user's to change
login_password() {
    login_days=$((RPI_IMAGE_BUILT / 86400))
    login_old=$(entry shadow "$USER_NAME")
    if [ -z "$login_old" ]; then
        set_entry shadow 640 "$USER_NAME" "$USER_NAME:${USER_PASSWORD_HASH:-!}:$login_days:0:99999:7:::"
    elif [ -n "$again" ] || [ "$(hash_of "$login_old")" = "${USER_PASSWORD_HASH:-!}" ]; then
        set_entry shadow 640 "$USER_NAME" "$login_old"
    elif [ -n "$USER_PASSWORD_HASH" ]; then
        login_rest=${login_old#*:*:}
        set_entry shadow 640 "$USER_NAME" "$USER_NAME:$USER_PASSWORD_HASH:$login_days:${login_rest#*:}"
    elif is_owned entry /etc/shadow "$USER_NAME" ||
        { is_vendor_login "$USER_NAME" && [ -n "$(vendor_logins_locked)" ] && [ -n "$(on_card authorized_keys)" ]; }; then
        # the password of an earlier configuration, or one that everyone knows
        set_entry shadow 640 "$USER_NAME" "$(with_hash "$login_old" '!')"
    fi
}

login_group() {
    login_line=$(entry group "$1")
    ! is_owned entry /etc/group "$1" || record entry /etc/group "$1"
    if [ -z "$login_line" ]; then
        [ "$1" = docker ] || {
            printf 'warning: there is no group %s on this image\n' "$1" >&2
            return 0
        }
        login_line=docker:x:$(free_id docker):
        record entry /etc/group docker
    fi
    set_member group 644 "$1" "$USER_NAME" "$login_line"
    [ -f "$root/etc/gshadow" ] || return 0
    login_line=$(entry gshadow "$1")
    set_member gshadow 640 "$1" "$USER_NAME" "${login_line:-$1:!::}"
}
