# Stanzas of interfaces(5), for images with ifupdown.
# Reads: no setting.
# Writes: /etc/network/interfaces, /etc/network/interfaces.d.

# interfaces_set NAME STANZA: replace the stanzas of that interface and address family by STANZA
interfaces_set() {
    stanza_done=0
    stanza_family=inet
    case $2 in
        *"iface $1 inet6 "*) stanza_family=inet6 ;;
    esac
    stanza_block="# rpi-image begin
$2
# rpi-image end"
    for stanza_file in "$root"/etc/network/interfaces.d/*; do
        [ -f "$stanza_file" ] || continue
        grep -q "^[[:space:]]*iface[[:space:]]*$1[[:space:]]*${stanza_family}[[:space:]]" "$stanza_file" || continue
        stanza_new=$(without_stanza "$1" <"$stanza_file")
        edit "${stanza_file#"$root"}" 644 "$stanza_new${stanza_new:+$newline}$stanza_block"
        stanza_done=1
    done
    stanza_old=$(text_of /etc/network/interfaces)
    stanza_new=$(through /etc/network/interfaces without_stanza "$1")
    if [ "$stanza_done" = 0 ]; then
        case $stanza_old in
            *source*/etc/network/interfaces.d*) put "/etc/network/interfaces.d/$1" 644 "$stanza_block" ;;
            *) stanza_new="$stanza_new${stanza_new:+$newline}$stanza_block" ;;
        esac
    fi
    edit /etc/network/interfaces 644 "$stanza_new"
}

# without_stanza NAME: print interfaces(5) from stdin without the stanza of NAME and $stanza_family
without_stanza() {
    set -f
    stanza_skip=0
    while IFS= read -r line || [ -n "$line" ]; do
        # shellcheck disable=SC2086 # into words on purpose
        set -- "$1" $line
        case ${2-} in
            auto | allow-*)
                stanza_skip=0
                stanza_names=
                stanza_kept=1
                stanza_word=$2
                stanza_own=$1
                shift 2
                for name; do
                    if [ "$name" = "$stanza_own" ]; then
                        stanza_kept=0
                    else
                        stanza_names="$stanza_names $name"
                    fi
                done
                set -- "$stanza_own"
                if [ "$stanza_kept" = 1 ]; then
                    printf '%s\n' "$line"
                elif [ -n "$stanza_names" ]; then
                    printf '%s%s\n' "$stanza_word" "$stanza_names"
                fi
                continue
                ;;
            iface)
                stanza_skip=0
                if [ "${3-}" = "$1" ] && [ "${4-}" = "$stanza_family" ]; then
                    stanza_skip=1
                fi
                ;;
            mapping | source | source-directory) stanza_skip=0 ;;
            '#'*) [ "$stanza_skip" = 0 ] || [ "${3-}" != rpi-image ] || stanza_skip=0 ;;
        esac
        if [ "$stanza_skip" = 0 ]; then
            printf '%s\n' "$line"
        fi
    done | without_own_marks
    set +f
}

# without_own_marks: print stdin without pairs of our marker lines that have nothing between them
without_own_marks() {
    marks_held=0
    while IFS= read -r line || [ -n "$line" ]; do
        if [ "$marks_held" = 1 ]; then
            marks_held=0
            [ "$line" != '# rpi-image end' ] || continue
            printf '# rpi-image begin\n'
        fi
        if [ "$line" = '# rpi-image begin' ]; then
            marks_held=1
        else
            printf '%s\n' "$line"
        fi
    done
    [ "$marks_held" = 0 ] || printf '# rpi-image begin\n'
}
