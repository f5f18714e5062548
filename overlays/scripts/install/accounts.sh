# Lines of passwd(5), shadow(5), group(5) and gshadow(5).
# Reads: USER_NAME.
# Writes: /etc/passwd, /etc/shadow, /etc/group, /etc/gshadow.

# entry FILE NAME: the line of passwd(5), shadow(5) or group(5)
entry() {
    while IFS= read -r line || [ -n "$line" ]; do
        case $line in
            "$2:"*)
                printf '%s\n' "$line"
                return 0
                ;;
        esac
    done <"$root/etc/$1"
}

# with_entry NAME LINE: stdin with NAME's line replaced or added
with_entry() {
    entry_done=0
    while IFS= read -r line || [ -n "$line" ]; do
        case $line in
            '') ;;
            "$1:"*)
                [ "$entry_done" = 1 ] || printf '%s\n' "$2"
                entry_done=1
                ;;
            *) printf '%s\n' "$line" ;;
        esac
    done
    [ "$entry_done" = 1 ] || printf '%s\n' "$2"
}

# set_entry FILE MODE NAME LINE
set_entry() {
    entry_new=$(with_entry "$3" "$4" <"$root/etc/$1")
    [ -n "$entry_new" ]
    edit "/etc/$1" "$2" "$entry_new"
}

free_id() {
    free=1000
    while grep -q -e "^[^:]*:[^:]*:$free:" "$root/etc/passwd" "$root/etc/group"; do
        free=$((free + 1))
    done
    printf '%s' "$free"
}

# with_member LINE: the line of group(5) or gshadow(5) with the user as a member
with_member() {
    case ",${1##*:}," in
        *",$USER_NAME,"*) printf '%s' "$1" ;;
        ,,) printf '%s%s' "$1" "$USER_NAME" ;;
        *) printf '%s,%s' "$1" "$USER_NAME" ;;
    esac
}

# group_shadow GROUP MEMBER: gshadow(5) says the same as group(5)
group_shadow() {
    [ -f "$root/etc/gshadow" ] || return 0
    shadow_line=$(entry gshadow "$1")
    shadow_line=${shadow_line:-$1:!::}
    [ -z "$2" ] || shadow_line=$(with_member "$shadow_line")
    set_entry gshadow 640 "$1" "$shadow_line"
}

home_of() {
    home=${1#*:*:*:*:*:}
    printf '%s' "${home%%:*}"
}

owner_of() {
    owner=${1#*:*:}
    owner_uid=${owner%%:*}
    owner=${owner#*:}
    printf '%s:%s' "$owner_uid" "${owner%%:*}"
}
