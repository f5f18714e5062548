# The image's daemon.json, without the keys that our options set.
# Reads: no setting.
# Writes: /etc/docker/daemon.json, and the original once as daemon.json.before-rpi-image;
# /var/lib/rpi-image/daemon.json.

# daemon_json: remove keys that a flag sets too; dockerd does not start with both
daemon_json() {
    [ -s "$root/etc/docker/daemon.json" ] || return 0
    json_keys=hosts
    for word in $docker_words $docker_drop_in; do
        case $word in
            --label | --label=*) json_keys="$json_keys labels" ;;
            --insecure-registry*) json_keys="$json_keys insecure-registries" ;;
            --registry-mirror*) json_keys="$json_keys registry-mirrors" ;;
            -D | --debug*) json_keys="$json_keys debug" ;;
            -s | --storage-driver*) json_keys="$json_keys storage-driver" ;;
            --storage-opt*) json_keys="$json_keys storage-opts" ;;
            --log-opt*) json_keys="$json_keys log-opts" ;;
            --dns | --dns=*) json_keys="$json_keys dns" ;;
            --*)
                word=${word%%=*}
                json_keys="$json_keys ${word#--}"
                ;;
        esac
    done
    json_text=$(without_members "$json_keys" <"$(json_stock)")
    [ -n "$json_text" ]
    is_owned file /etc/docker/daemon.json ||
        [ "$json_text" != "$(text_of /etc/docker/daemon.json)" ] || return 0
    copy "$(json_stock)" /etc/docker/daemon.json.before-rpi-image 600
    record file /etc/docker/daemon.json
    edit /etc/docker/daemon.json 644 "$json_text"
    note "$state/daemon.json" "$json_text"
}

# json_stock: print the name of the file as it was before us, so that what an earlier option has
# taken out comes back; if someone has changed it since, of the file as it is
json_stock() {
    json_saved=$root$state/before/$(id_of file /etc/docker/daemon.json)
    if [ -f "$json_saved" ] && cmp -s "$root$state/daemon.json" "$root/etc/docker/daemon.json"; then
        printf '%s' "$json_saved"
    else
        printf '%s' "$root/etc/docker/daemon.json"
    fi
}

# without_members KEYS: print the JSON object on stdin without those members, unchanged if it has
# none of them
without_members() {
    awk -v keys="$1" '
        function flush(    name, bare) {
            if (member ~ /[^ \t\r\n]/) {
                bare = member
                sub(/^[ \t\r\n]*"/, "", bare)
                name = bare
                sub(/"[ \t\r\n]*:.*/, "", name)
                if (index(" " keys " ", " " name " ")) dropped = 1
                else { kept = kept (kept == "" ? "" : ",") member }
            }
            member = ""
        }
        { text = text (NR > 1 ? "\n" : "") $0 }
        END {
            for (i = 1; i <= length(text); i++) {
                c = substr(text, i, 1)
                if (quoted) {
                    member = member c
                    if (escaped) escaped = 0
                    else if (c == "\\") escaped = 1
                    else if (c == "\"") quoted = 0
                    continue
                }
                if (c == "\"") quoted = 1
                if ((c == "{" || c == "[") && ++depth == 1) continue
                if ((c == "}" || c == "]") && --depth == 0) { flush(); continue }
                if (depth == 1 && c == ",") { flush(); continue }
                if (depth > 0) member = member c
            }
            if (dropped) { sub(/[ \t\r\n]+$/, "", kept); print "{" kept "\n}" }
            else print text
        }'
}
