# Lines of passwd(5), shadow(5), group(5) and gshadow(5).
# Reads: USER_NAME.
# Writes: /etc/passwd, /etc/shadow, /etc/group, /etc/gshadow.

# entry FILE NAME: print the line of NAME in /etc/FILE
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

# with_entry NAME LINE: print stdin with the line of NAME replaced, or added at the end
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

# set_entry FILE MODE NAME LINE: write NAME's line into /etc/FILE
set_entry() {
    entry_new=$(with_entry "$3" "$4" <"$root/etc/$1")
    [ -n "$entry_new" ]
    edit "/etc/$1" "$2" "$entry_new"
}

# free_id: print the first number from 1000 on that no user and no group has
free_id() {
    free=1000
    while grep -q -e "^[^:]*:[^:]*:$free:" "$root/etc/passwd" "$root/etc/group"; do
        free=$((free + 1))
    done
    printf '%s' "$free"
}

# with_member LINE: print a line of group(5) or gshadow(5) with USER_NAME as a member
with_member() {
    case ",${1##*:}," in
        *",$USER_NAME,"*) printf '%s' "$1" ;;
        ,,) printf '%s%s' "$1" "$USER_NAME" ;;
        *) printf '%s,%s' "$1" "$USER_NAME" ;;
    esac
}

# group_shadow GROUP MEMBER: keep gshadow(5) in step with group(5); MEMBER may be empty
group_shadow() {
    [ -f "$root/etc/gshadow" ] || return 0
    shadow_line=$(entry gshadow "$1")
    shadow_line=${shadow_line:-$1:!::}
    [ -z "$2" ] || shadow_line=$(with_member "$shadow_line")
    set_entry gshadow 640 "$1" "$shadow_line"
}

# home_of LINE: print the home directory in a line of passwd(5)
home_of() {
    home=${1#*:*:*:*:*:}
    printf '%s' "${home%%:*}"
}

# owner_of LINE: print UID:GID of a line of passwd(5)
owner_of() {
    owner=${1#*:*:}
    owner_uid=${owner%%:*}
    owner=${owner#*:}
    printf '%s:%s' "$owner_uid" "${owner%%:*}"
}
