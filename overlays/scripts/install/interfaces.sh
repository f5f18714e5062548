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
        stanza_file=${stanza_file#"$root"}
        text_of "$stanza_file" | has_stanza "$1" "$stanza_family" || continue
        if is_owned file "$stanza_file"; then
            put "$stanza_file" 644 "$stanza_block"
        else
            change_stanza "$stanza_file" "$1" "$stanza_block"
        fi
        stanza_done=1
    done
    if [ "$stanza_done" = 0 ]; then
        case $(text_of /etc/network/interfaces) in
            *source*/etc/network/interfaces.d*)
                put "/etc/network/interfaces.d/$1" 644 "$stanza_block"
                stanza_block=
                ;;
        esac
    else
        stanza_block=
    fi
    if [ -n "$stanza_block" ] || text_of /etc/network/interfaces | has_stanza "$1" "$stanza_family"; then
        change_stanza /etc/network/interfaces "$1" "$stanza_block"
    fi
}

# change_stanza PATH NAME TEXT: remove the stanza of NAME and $stanza_family, and add TEXT
change_stanza() {
    record stanza "$1" "$2 $stanza_family"
    stanza_new=$(through "$1" without_stanza "$2" "$stanza_family")
    if [ -n "$3" ]; then
        stanza_new="$stanza_new${stanza_new:+$newline}$3"
    fi
    edit "$1" 644 "$stanza_new"
}

# has_stanza NAME FAMILY: stdin has one
has_stanza() {
    grep -q -e "^[[:space:]]*iface[[:space:]]*$1[[:space:]]*$2[[:space:]]"
}

# owns_stanza NAME: one of ours is there, or a file with one
owns_stanza() {
    is_owned stanza /etc/network/interfaces "$1 inet" || is_owned file "/etc/network/interfaces.d/$1" ||
        is_owned stanza "/etc/network/interfaces.d/$1" "$1 inet"
}

# undo_stanza PATH NAME FAMILY: put back the file as it was; if something else has changed in it,
# too, only the stanza
undo_stanza() {
    [ -n "$(text_of "$1")" ] || return 0
    stanza_rest=$(through "$1" without_stanza "$2" "$3")
    if [ ! -f "$saved" ]; then
        # of an earlier version of us, which saved nothing
        edit "$1" 644 "$stanza_rest${stanza_rest:+$newline}auto $2
iface $2 $3 dhcp"
        return 0
    fi
    if [ "$stanza_rest" = "$(without_stanza "$2" "$3" <"$saved")" ]; then
        stanza_old=$(cat "$saved")
        edit "$1" 644 "$stanza_old"
        return 0
    fi
    stanza_old=$(only_stanza "$2" "$3" <"$saved")
    edit "$1" 644 "$stanza_rest${stanza_old:+$newline}$stanza_old"
}

# without_stanza NAME FAMILY: print interfaces(5) from stdin without that stanza
without_stanza() {
    split_stanza "$1" "$2" rest | without_own_marks
}

# only_stanza NAME FAMILY: print only what without_stanza leaves out
only_stanza() {
    split_stanza "$1" "$2" own
}

split_stanza() {
    awk -v name="$1" -v family="$2" -v wanted="$3" '
        function out(which, text) { if (which == wanted) print text }
        $1 == "auto" || $1 ~ /^allow-/ {
            inside = 0
            kept = ""
            own = 0
            for (i = 2; i <= NF; i++) {
                if ($i == name) own = 1
                else kept = kept " " $i
            }
            if (!own) out("rest", $0)
            else {
                out("own", $1 " " name)
                if (kept != "") out("rest", $1 kept)
            }
            next
        }
        $1 == "iface" { inside = ($2 == name && $3 == family) }
        $1 == "mapping" || $1 == "source" || $1 == "source-directory" { inside = 0 }
        /^[ \t]*#[ \t]*rpi-image/ { inside = 0 }
        { out(inside ? "own" : "rest", $0) }
    '
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
