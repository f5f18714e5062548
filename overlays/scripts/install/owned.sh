# Owned settings: what this program has set on the Pi, what was there before, and taking it back.
# /var/lib/rpi-image/owned has a line for each: SETTING, KIND, PATH and, for some kinds, KEY,
# separated by tabs. What was there before lies in /var/lib/rpi-image/before until it is put back.
# Reads: no setting.
# Writes: /var/lib/rpi-image/owned.new, /var/lib/rpi-image/before.

# own SETTING WANTED FUNCTION UNDONE VENDOR: apply one setting of the list in owned_settings.sh;
# what an earlier configuration owned for it is kept if that fails
own() {
    owner=$1
    if [ -n "$2" ]; then
        step "$1" "$3"
        if [ "$step_code" != 0 ] && [ -f "$root$state/owned" ]; then
            grep -e "^$1$tab" "$root$state/owned" >>"$root$state/owned.new"
            # no line, or a full root: then it is not known what is still owned
            [ $? -le 1 ] || unsure=1
        fi
    fi
    owner=
}

# record KIND PATH [KEY]: the setting in $owner owns this; the first time, what is there is saved
record() {
    [ -n "$owner" ] || return 0
    ! is_listed "$root$state/owned.new" "$@" || return 0
    # saved first: what is listed is not saved again
    is_owned "$@" || save "$@"
    printf '%s\n' "$owner$tab$1$tab$2${3:+$tab$3}" >>"$root$state/owned.new"
}

# record_file PATH: our own notes are no settings, except for those that a setting names itself
record_file() {
    case $1 in
        "$state"/*) ;;
        *) record file "$1" ;;
    esac
}

# is_listed FILE KIND PATH [KEY]
is_listed() {
    [ -f "$1" ] && cut -f 2- "$1" | grep -q -x -F -e "$2$tab$3${4:+$tab$4}"
}

is_owned() {
    is_listed "$root$state/owned" "$@"
}

# id_of KIND PATH [KEY]: print the name under which it is saved
id_of() {
    printf '%s' "$1$2${3:++$3}" | tr '/ ' '+_'
}

# save KIND PATH [KEY]: keep what is there; what has our name is of an earlier version of us
save() {
    (umask 077 && mkdir -p "$root$state/before")
    saved=$root$state/before/$(id_of "$@")
    rm -f "$saved"
    saved_text=
    case $1:$2 in
        file:*rpi-image*) ;;
        file:* | stanza:*)
            if [ -e "$root$2" ] || [ -L "$root$2" ]; then
                cp -p -P "$root$2" "$saved"
            fi
            ;;
        line:*) saved_text=$(through "$2" setting_lines "$3") ;;
        entry:*) saved_text=$(entry "${2#/etc/}" "$3") ;;
    esac
    [ -z "$saved_text" ] || (umask 077 && printf '%s\n' "$saved_text" >"$saved")
}

# take_back: undo what an earlier configuration owned and this one does not
take_back() {
    adopt
    [ -s "$root$state/owned" ] && [ -z "$unsure" ] || return 0
    while IFS=$tab read -r back_setting back_kind back_path back_key <&3; do
        is_listed "$root$state/owned.new" "$back_kind" "$back_path" "$back_key" && continue
        step "$back_setting" undo "$back_kind" "$back_path" "$back_key"
        [ "$step_code" = 0 ] ||
            printf '%s\n' "$back_setting$tab$back_kind$tab$back_path${back_key:+$tab$back_key}" \
                >>"$root$state/owned.new"
    done 3<"$root$state/owned"
}

# undo KIND PATH [KEY]: restore what was saved, or remove what was not there
undo() {
    saved=$root$state/before/$(id_of "$@")
    case $1 in
        file) undo_file "$2" ;;
        line) undo_line "$2" "$3" ;;
        row) undo_row "$2" "$3" ;;
        block) set_block "$2" 644 '' ;;
        entry) undo_entry "${2#/etc/}" "$3" ;;
        member) undo_member "${2#/etc/}" "${3%% *}" "${3#* }" ;;
        stanza) undo_stanza "$2" "${3%% *}" "${3#* }" ;;
        hostkey) undo_host_key "$2" ;;
    esac
}

undo_file() {
    if [ -e "$saved" ] || [ -L "$saved" ]; then
        prepare
        cp -p -P "$saved" "$part"
        place "$1"
    else
        drop "$1"
    fi
}

# adopt: an earlier version of us has kept no list; what it set has our name
adopt() {
    [ ! -e "$root$state/owned" ] || return 0
    adopted_lines=$(adopted_list)
    [ -z "$adopted_lines" ] || note "$state/owned" "$adopted_lines"
}

adopted_list() {
    for adopted in /etc/apt/apt.conf.d/00rpi-image /etc/systemd/timesyncd.conf.d/rpi-image.conf \
        /etc/chrony/sources.d/rpi-image.sources /etc/sudoers.d/090_rpi-image \
        /etc/systemd/system/docker.service.d/zz-rpi-image.conf "$state/static_address" \
        /etc/docker/tls/ca.pem /etc/docker/tls/cert.pem /etc/docker/tls/key.pem \
        "$root"/etc/NetworkManager/system-connections/rpi-image-*; do
        adopted=${adopted#"$root"}
        [ ! -e "$root$adopted" ] || printf 'earlier version\tfile\t%s\n' "$adopted"
    done
    adopted_name=$(head -n 1 "$root$state/static_address" 2>/dev/null)
    for adopted in /etc/dhcpcd.conf /etc/ntp.conf /etc/network/interfaces "$root"/etc/network/interfaces.d/*; do
        adopted=${adopted#"$root"}
        grep -q -x '# rpi-image begin' "$root$adopted" 2>/dev/null || continue
        case $adopted in
            */interfaces*)
                [ -z "$adopted_name" ] ||
                    printf 'earlier version\tstanza\t%s\t%s inet\n' "$adopted" "$adopted_name"
                ;;
            *) printf 'earlier version\tblock\t%s\n' "$adopted" ;;
        esac
    done
}
