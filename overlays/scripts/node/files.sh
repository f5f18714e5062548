# Small files, and which commands the image has.
# Reads: no setting.
# Writes: the files that its callers name.

# content FILE: print it, or nothing if there is none
content() {
    if [ -f "$1" ]; then
        cat "$1"
    fi
}

# put FILE TEXT: write TEXT and a newline; a power cut leaves the old file or the new one
put() {
    mkdir -p "${1%/*}" && printf '%s\n' "$2" >"$1.new" && sync && mv -f "$1.new" "$1"
}

has() {
    command -v "$1" >/dev/null 2>&1
}
