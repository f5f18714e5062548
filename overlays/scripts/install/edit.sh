# Edits of files that others own: KEY= lines, whole lines, and a block between our two marker lines.
# Reads: no setting.
# Writes: the files that its callers name.

# with_setting KEY LINE: print stdin with the first KEY= line replaced and further ones removed;
# a line that ends with a backslash goes on in the next one. Without LINE all are removed.
with_setting() {
    setting_done=0
    setting_skip=0
    while IFS= read -r line || [ -n "$line" ]; do
        if [ "$setting_skip" = 1 ]; then
            case $line in
                *\\) ;;
                *) setting_skip=0 ;;
            esac
            continue
        fi
        case $line in
            "$1="* | "export $1="*)
                if [ "$setting_done" = 0 ] && [ -n "$2" ]; then
                    printf '%s\n' "$2"
                fi
                setting_done=1
                case $line in
                    *\\) setting_skip=1 ;;
                esac
                ;;
            *) printf '%s\n' "$line" ;;
        esac
    done
    if [ "$setting_done" = 0 ] && [ -n "$2" ]; then
        printf '%s\n' "$2"
    fi
}

# setting_lines KEY: print the KEY= lines of stdin
setting_lines() {
    setting_on=0
    while IFS= read -r line || [ -n "$line" ]; do
        case $line in
            "$1="* | "export $1="*) setting_on=1 ;;
        esac
        [ "$setting_on" = 0 ] || printf '%s\n' "$line"
        case $line in
            *\\) ;;
            *) setting_on=0 ;;
        esac
    done
}

# set_setting PATH KEY LINE: as with_setting, in a file
set_setting() {
    case $1 in
        "$state"/*) ;;
        *) record line "$1" "$2" ;;
    esac
    setting_new=$(through "$1" with_setting "$2" "$3")
    edit "$1" 644 "$setting_new"
}

undo_line() {
    now_at "$1"
    [ -f "$found" ] || return 0
    line_before=
    if [ -f "$saved" ]; then
        line_before=$(cat "$saved")
    fi
    setting_new=$(through "$1" with_setting "$2" "$line_before")
    edit_or_drop "$1" 644 "$setting_new"
}

# edit_or_drop PATH MODE TEXT: a file of which nothing is left was made by us
edit_or_drop() {
    if [ -n "$3" ]; then
        edit "$@"
    else
        drop "$1"
    fi
}

# add_row PATH LINE: add a whole line at the end, unless it is there
add_row() {
    if text_of "$1" | grep -q -x -F -e "$2"; then
        ! is_owned row "$1" "$2" || record row "$1" "$2"
        return 0
    fi
    record row "$1" "$2"
    row_text=$(text_of "$1")
    edit "$1" 644 "$row_text${row_text:+$newline}$2"
}

undo_row() {
    now_at "$1"
    [ -f "$found" ] || return 0
    row_text=$(grep -v -x -F -e "$2" "$found" || true)
    edit_or_drop "$1" 644 "$row_text"
}

# with_block TEXT: print stdin with our block replaced by TEXT; without TEXT it is removed
with_block() {
    block_inside=0
    block_done=0
    while IFS= read -r line || [ -n "$line" ]; do
        case $line in
            '# rpi-image begin')
                block_inside=1
                [ -z "$1" ] || [ "$block_done" = 1 ] ||
                    printf '# rpi-image begin\n%s\n# rpi-image end\n' "$1"
                block_done=1
                ;;
            '# rpi-image end') block_inside=0 ;;
            *) [ "$block_inside" = 1 ] || printf '%s\n' "$line" ;;
        esac
    done
    if [ "$block_done" = 0 ] && [ -n "$1" ]; then
        printf '# rpi-image begin\n%s\n# rpi-image end\n' "$1"
    fi
}

# set_block PATH MODE TEXT: as with_block, in a file
set_block() {
    if [ -n "$3" ]; then
        record block "$1"
    elif ! text_of "$1" | grep -q -x '# rpi-image begin'; then
        return 0
    fi
    block_new=$(through "$1" with_block "$3")
    edit_or_drop "$1" "$2" "$block_new"
}
