# Files of the root file system. What changes is prepared below $state/new and put into its place
# once all steps are done (commit.sh), so a power cut leaves the old file or the new one.
# Reads: no setting.
# Writes: below /var/lib/rpi-image the files that its callers name.

# now_at PATH: set $found to the file as this run leaves it: the prepared one or that in its place
now_at() {
    found=$root$state/new$1
    [ -e "$found" ] || [ -L "$found" ] || found=$root$1
}

# prepare: set $part to where a new file is written; until it is complete it has no place
prepare() {
    part=$root$state/part
    rm -f "$part"
}

# put PATH MODE TEXT: write TEXT and a newline, owned by root
put() {
    record_file "$1"
    prepare
    (umask 077 && printf '%s\n' "$3" >"$part")
    chmod "$2" "$part"
    place "$1"
}

# edit PATH MODE TEXT: as put, but an existing file keeps its mode and owner; the caller records
# what it changes
edit() {
    now_at "$1"
    prepare
    if [ -f "$found" ]; then
        cp -p "$found" "$part"
        printf '%s\n' "$3" >"$part"
    else
        (umask 077 && printf '%s\n' "$3" >"$part")
        chmod "$2" "$part"
    fi
    place "$1"
}

# copy FROM PATH MODE: copy a file of the card
copy() {
    record_file "$2"
    prepare
    (umask 077 && cat "$1" >"$part")
    chmod "$3" "$part"
    place "$2"
}

# link TARGET PATH: make a symbolic link
link() {
    record_file "$2"
    prepare
    ln -s "$1" "$part"
    place "$2"
}

# place PATH: keep what was prepared, unless the same file is there already
place() {
    if is_same "$part" "$root$1"; then
        rm -f "$part" "$root$state/new$1"
        return 0
    fi
    place_new=$root$state/new$1
    mkdir -p "${place_new%/*}"
    mv -f "$part" "$place_new"
    printf 'wrote %s\n' "$1" >&2
}

# is_same FILE OTHER: both are links to one target, or files of the same mode and content
is_same() {
    if [ -L "$1" ] || [ -L "$2" ]; then
        [ -L "$1" ] && [ "$(readlink "$1")" = "$(readlink "$2" 2>/dev/null)" ]
        return
    fi
    [ -f "$2" ] && cmp -s "$1" "$2" && [ "$(mode_of "$1")" = "$(mode_of "$2")" ]
}

# mode_of FILE: print its type and permissions as ls does
mode_of() {
    # shellcheck disable=SC2012 # `stat` is not everywhere; only the first word is taken
    ls -ld "$1" | sed 's/ .*//'
}

# drop PATH: remove a file or folder
drop() {
    rm -f "$root$state/new$1"
    if [ -e "$root$1" ] || [ -L "$root$1" ]; then
        rm -rf "$root$1"
        printf 'removed %s\n' "$1" >&2
    fi
}

# text_of PATH: print the file, or nothing if there is none
text_of() {
    now_at "$1"
    if [ -f "$found" ]; then
        cat "$found"
    fi
}

# through PATH FILTER...: print what FILTER makes of the file, or of nothing if there is none
through() {
    now_at "$1"
    [ -f "$found" ] || found=/dev/null
    shift
    "$@" <"$found"
}

# note PATH TEXT: write a small file of our own at once. It is checked here: a caller may run
# where `set -e` does nothing, and a full root must not leave an empty file.
note() {
    [ ! -f "$root$1" ] || [ "$(cat "$root$1")" != "$2" ] || return 0
    mkdir -p "$root${1%/*}" || return 1
    if (umask 077 && printf '%s\n' "$2" >"$root$1.new") && mv -f "$root$1.new" "$root$1"; then
        return 0
    fi
    rm -f "$root$1.new"
    return 1
}
