# HTTP requests with what the image has: curl, wget or nc.
# Reads: CONSUL_TOKEN.
# Writes: nothing.

http_get() {
    if has curl; then
        curl -f -s -m 10 --noproxy '*' "$1"
    elif has wget; then
        limit 15 wget -q -O - "$1"
    else
        return 1
    fi 2>/dev/null
}

# http_save URL FILE: as long as it takes; a file that is cut off has another digest
http_save() {
    if has curl; then
        curl -f -s --connect-timeout 10 --noproxy '*' -o "$2" "$1"
    else
        wget -q -O "$2" "$1"
    fi 2>/dev/null || {
        rm -f "$2"
        return 1
    }
}

# http_delete HOST:PORT PATH: busybox's wget has no --method
http_delete() {
    if has curl; then
        curl -f -s -m 10 --noproxy '*' -X DELETE "http://$1$2"
    elif wget --help 2>&1 | grep -q -e --method; then
        limit 15 wget -q -O - --method=DELETE "http://$1$2"
    elif has nc; then
        printf 'DELETE %s HTTP/1.0\r\nHost: %s\r\n\r\n' "$2" "$1" |
            nc -w 10 "${1%:*}" "${1##*:}" | grep -q ' 200 '
    else
        return 1
    fi >/dev/null 2>&1
}

# token_as FORMAT: print the token of consul, if there is one. No client gets it as an
# argument, which everyone on the Pi can read; wget takes it from a file only.
token_as() {
    # shellcheck disable=SC2059 # the format is ours
    [ -z "$CONSUL_TOKEN" ] || printf "$1" "$CONSUL_TOKEN"
}

# http_put HOST:PORT PATH TEXT: TEXT is ASCII and short
http_put() {
    if has curl; then
        token_as 'header = "X-Consul-Token: %s"\n' |
            curl -K - -f -s -m 3 --noproxy '*' -X PUT --data-binary "$3" "http://$1$2"
    elif wget --help 2>&1 | grep -q -e --method; then
        (umask 077 && token_as 'header = X-Consul-Token: %s\n' >"$state/wgetrc")
        limit 3 env WGETRC="$state/wgetrc" \
            wget -q -t 1 -O - --method=PUT --body-data="$3" "http://$1$2"
    elif has nc; then
        {
            printf 'PUT %s HTTP/1.0\r\nHost: %s\r\nContent-Length: %s\r\n' "$2" "$1" "${#3}"
            token_as 'X-Consul-Token: %s\r\n'
            printf '\r\n%s' "$3"
        } | nc -w 3 "${1%:*}" "${1##*:}" | grep -q ' 200 '
    else
        return 1
    fi >/dev/null 2>&1
}

# in_url ADDRESS: print it as a URL has it, with IPv6 in brackets (RFC 3986, 3.2.2)
in_url() {
    case $1 in
        *:*) printf '[%s]' "$1" ;;
        *) printf '%s' "$1" ;;
    esac
}
