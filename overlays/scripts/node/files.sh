# Small files, and which commands the image has.
# Reads: no setting.
# Writes: the files that its callers name.

# content FILE: print it, or nothing if there is none
content() {
    if [ -f "$1" ]; then
        cat "$1"
    fi
}

# put FILE TEXT: write TEXT and a newline. It is not flushed: what is lost in a power cut is of the
# boot that ended with it, or made again. A full root leaves the old file.
put() {
    mkdir -p "${1%/*}" && printf '%s\n' "$2" >"$1.new" && mv -f "$1.new" "$1" && return 0
    rm -f "$1.new"
    return 1
}

has() {
    command -v "$1" >/dev/null 2>&1
}
