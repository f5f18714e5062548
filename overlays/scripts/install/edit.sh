# Edits of files that others own: one KEY= line, or a block between our two marker lines.
# Reads: no setting.
# Writes: the files that its callers name.

# with_setting KEY LINE: print stdin with the first KEY= line replaced and further ones removed;
# a line that ends with a backslash goes on in the next one
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
                if [ "$setting_done" = 0 ]; then
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
    if [ "$setting_done" = 0 ]; then
        printf '%s\n' "$2"
    fi
}

# set_setting PATH KEY LINE: as with_setting, in a file
set_setting() {
    setting_new=$(through "$1" with_setting "$2" "$3")
    edit "$1" 644 "$setting_new"
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
    if [ -z "$3" ] && ! grep -q -x '# rpi-image begin' "$root$1" 2>/dev/null; then
        return 0
    fi
    block_new=$(through "$1" with_block "$3")
    edit "$1" "$2" "$block_new"
}
