# Small files; and which commands there are.
# Reads: no setting.
# Writes: the files that are named to it.

content() {
    if [ -f "$1" ]; then
        cat "$1"
    fi
}

# put FILE TEXT
put() {
    mkdir -p "${1%/*}" && printf '%s\n' "$2" >"$1.new" && sync && mv -f "$1.new" "$1"
}

has() {
    command -v "$1" >/dev/null 2>&1
}
