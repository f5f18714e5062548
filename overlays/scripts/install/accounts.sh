# Lines of passwd(5), shadow(5), group(5) and gshadow(5).
# Reads: no setting.
# Writes: /etc/passwd, /etc/shadow, /etc/group, /etc/gshadow.

# entry FILE NAME: print the line of NAME in /etc/FILE
entry() {
    now_at "/etc/$1"
    while IFS= read -r line || [ -n "$line" ]; do
        case $line in
            "$2:"*)
                printf '%s\n' "$line"
                return 0
                ;;
        esac
    done <"$found"
}

# with_entry NAME LINE: print stdin with the line of NAME replaced, or added at the end; without
# LINE it is removed
with_entry() {
    entry_done=0
    while IFS= read -r line || [ -n "$line" ]; do
        case $line in
            '') ;;
            "$1:"*)
                [ "$entry_done" = 1 ] || [ -z "$2" ] || printf '%s\n' "$2"
                entry_done=1
                ;;
            *) printf '%s\n' "$line" ;;
        esac
    done
    [ "$entry_done" = 1 ] || [ -z "$2" ] || printf '%s\n' "$2"
}

# write_entry FILE MODE NAME LINE: write NAME's line into /etc/FILE
write_entry() {
    now_at "/etc/$1"
    entry_new=$(with_entry "$3" "$4" <"$found")
    [ -n "$entry_new" ]
    edit "/etc/$1" "$2" "$entry_new"
}

# set_entry FILE MODE NAME LINE: as write_entry, for a line that this program owns
set_entry() {
    record entry "/etc/$1" "$3"
    write_entry "$@"
}

# undo_entry FILE NAME: put the line back; a password that was ours before, too, is locked
undo_entry() {
    entry_now=$(entry "$1" "$2")
    [ -n "$entry_now" ] || return 0
    # Docker's package takes over the group that we have made before it came
    [ "$1:$2" != group:docker ] || [ ! -x "$root/usr/bin/docker" ] || return 0
    entry_before=
    if [ -f "$saved" ]; then
        entry_before=$(cat "$saved")
    fi
    if [ "$1" = shadow ] && [ -n "$entry_before" ] &&
        [ "$(hash_of "$entry_before")" = "$(hash_of "$entry_now")" ]; then
        entry_before=$(with_hash "$entry_now" '!')
    fi
    write_entry "$1" 644 "$2" "$entry_before"
}

# hash_of LINE: print the password field of a line of shadow(5)
hash_of() {
    hash_rest=${1#*:}
    printf '%s' "${hash_rest%%:*}"
}

# with_hash LINE HASH: print a line of shadow(5) with another password field
with_hash() {
    hash_rest=${1#*:*:}
    printf '%s:%s:%s' "${1%%:*}" "$2" "$hash_rest"
}

# free_id NAME: print the number of the home of that name, which an earlier user of it has left, or
# the first from 1000 on that no user, no group and no home has
free_id() {
    free=$(home_number "$root/home/$1")
    if [ "${free:-0}" -ge 1000 ] && ! is_taken "$free"; then
        printf '%s' "$free"
        return 0
    fi
    free_homes=" $(for free_home in "$root"/home/*; do home_number "$free_home" && printf ' '; done)"
    free=1000
    while is_taken "$free" || [ "$free_homes" != "${free_homes#* "$free" }" ]; do
        free=$((free + 1))
    done
    printf '%s' "$free"
}

# is_taken NUMBER: a user or a group has it
is_taken() {
    for taken_file in /etc/passwd /etc/group; do
        now_at "$taken_file"
        ! grep -q -e "^[^:]*:[^:]*:$1:" "$found" || return 0
    done
    return 1
}

# home_number FOLDER: print the number of its owner
home_number() {
    [ -d "$1" ] || return 0
    # shellcheck disable=SC2012 # `stat` is not everywhere; only the third word is taken
    ls -ldn "$1" | awk '{ printf "%s", $3 }'
}

# with_member LINE USER: print a line of group(5) or gshadow(5) with USER as a member
with_member() {
    case ",${1##*:}," in
        *",$2,"*) printf '%s' "$1" ;;
        ,,) printf '%s%s' "$1" "$2" ;;
        *) printf '%s,%s' "$1" "$2" ;;
    esac
}

# without_member LINE USER: print it without that member
without_member() {
    member_list=,${1##*:},
    case $member_list in
        *",$2,"*) member_list=${member_list%%",$2,"*},${member_list#*",$2,"} ;;
    esac
    member_list=${member_list#,}
    printf '%s:%s' "${1%:*}" "${member_list%,}"
}

# set_member FILE MODE GROUP USER LINE: make USER a member of GROUP, whose line in /etc/FILE is LINE;
# a member that was there before is not ours
set_member() {
    member_new=$(with_member "$5" "$4")
    if [ "$member_new" != "$(entry "$1" "$3")" ] || is_owned member "/etc/$1" "$3 $4"; then
        record member "/etc/$1" "$3 $4"
        write_entry "$1" "$2" "$3" "$member_new"
    fi
}

undo_member() {
    member_line=$(entry "$1" "$2")
    [ -n "$member_line" ] || return 0
    write_entry "$1" 644 "$2" "$(without_member "$member_line" "$3")"
}

# home_of LINE: print the home directory in a line of passwd(5)
home_of() {
    home=${1#*:*:*:*:*:}
    printf '%s' "${home%%:*}"
}

# owner_of LINE: print UID:GID of a line of passwd(5)
owner_of() {
    owner_ids=${1#*:*:}
    owner_uid=${owner_ids%%:*}
    owner_ids=${owner_ids#*:}
    printf '%s:%s' "$owner_uid" "${owner_ids%%:*}"
}

# give_to OWNER FILE...: in a folder that stands for a Pi, a user who is not root may not
give_to() {
    give_owner=$1
    shift
    chown "$give_owner" "$@" || [ -n "$root" ]
}
