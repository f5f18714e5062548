# Files of the root file system. A new file is complete and synced before it gets its name, so a
# power cut leaves the old file or the new one.
# Reads: no setting.
# Writes: the files that its callers name.

# put PATH MODE TEXT: write TEXT and a newline, owned by root
put() {
    put_target=$root$1
    put_part=${put_target%/*}/.${put_target##*/}.rpi-image
    mkdir -p "${put_target%/*}"
    rm -f "$put_part"
    (umask 077 && printf '%s\n' "$3" >"$put_part")
    chmod "$2" "$put_part"
    place "$1"
}

# edit PATH MODE TEXT: as put, but an existing file keeps its mode and owner
edit() {
    put_target=$root$1
    put_part=${put_target%/*}/.${put_target##*/}.rpi-image
    if [ ! -f "$put_target" ]; then
        put "$@"
        return
    fi
    rm -f "$put_part"
    cp -p "$put_target" "$put_part"
    printf '%s\n' "$3" >"$put_part"
    place "$1"
}

# copy FROM PATH MODE: copy a file of the boot partition
copy() {
    put_target=$root$2
    put_part=${put_target%/*}/.${put_target##*/}.rpi-image
    mkdir -p "${put_target%/*}"
    rm -f "$put_part"
    (umask 077 && cat "$1" >"$put_part")
    chmod "$3" "$put_part"
    place "$2"
}

# place PATH: rename what was prepared, unless the same file is there already
place() {
    if [ -f "$put_target" ] && [ ! -L "$put_target" ] && cmp -s "$put_part" "$put_target" 2>/dev/null &&
        [ "$(mode_of "$put_part")" = "$(mode_of "$put_target")" ]; then
        rm -f "$put_part"
        return 0
    fi
    sync
    mv -f "$put_part" "$put_target"
    printf 'wrote %s\n' "$1" >&2
}

# mode_of FILE: print its type and permissions as ls does
mode_of() {
    # shellcheck disable=SC2012 # `stat` is not everywhere; only the first word is taken
    ls -ld "$1" | sed 's/ .*//'
}

# drop PATH: remove a file or folder
drop() {
    if [ -e "$root$1" ] || [ -L "$root$1" ]; then
        rm -rf "$root$1"
        printf 'removed %s\n' "$1" >&2
    fi
}

# link TARGET PATH: make a symbolic link
link() {
    link_path=$root$2
    [ "$(readlink "$link_path" 2>/dev/null)" = "$1" ] && return 0
    mkdir -p "${link_path%/*}"
    rm -f "$link_path.rpi-image"
    ln -s "$1" "$link_path.rpi-image"
    mv -f "$link_path.rpi-image" "$link_path"
    printf 'wrote %s\n' "$2" >&2
}

# text_of PATH: print the file, or nothing if there is none
text_of() {
    if [ -f "$root$1" ]; then
        cat "$root$1"
    fi
}

# through PATH FILTER...: print what FILTER makes of the file, or of nothing if there is none
through() {
    through_path=$root$1
    [ -f "$through_path" ] || through_path=/dev/null
    shift
    "$@" <"$through_path"
}
