# Puts what the steps have prepared into its places: one flush, then only renames.
# Reads: no setting.
# Writes: what the steps have prepared; /var/lib/rpi-image/owned, /var/lib/rpi-image/card.

# put_in_place: the list of owned settings first, with those of before and now, so that a power cut
# between two renames leaves nothing of ours unlisted
put_in_place() {
    list_owned
    if is_unchanged; then
        rm -rf "$root${state:?}/new" "$root$state/owned.new" "$root$state/owned.both"
        return 0
    fi
    sync
    if [ -s "$root$state/owned.both" ]; then
        mv -f "$root$state/owned.both" "$root$state/owned"
    fi
    move_prepared
    if [ -d "$root$state/card.new" ]; then
        rm -rf "$root${state:?}/card"
        mv "$root$state/card.new" "$root$state/card"
    fi
    forget_undone
    mv -f "$root$state/owned.new" "$root$state/owned"
}

is_unchanged() {
    [ ! -d "$root$state/card.new" ] && cmp -s "$root$state/owned.new" "$root$state/owned" || return 1
    [ ! -d "$root$state/new" ] || [ -z "$(find "$root$state/new" ! -type d)" ]
}

# list_owned: write the lists for during and after the renames
list_owned() {
    touch "$root$state/owned.new"
    if awk '!seen[$0]++' "$(old_list)" "$root$state/owned.new" >"$root$state/owned.both"; then
        [ ! -s "$root$state/owned.both" ] || return 0
    fi
    # a full root
    rm -f "$root$state/owned.new" "$root$state/owned.both"
    return 1
}

# old_list: print the name of the list of an earlier run
old_list() {
    if [ -f "$root$state/owned" ]; then
        printf '%s' "$root$state/owned"
    else
        printf /dev/null
    fi
}

# move_prepared: our own notes last; they tell a later run that the rest is done
move_prepared() {
    [ -d "$root$state/new" ] || return 0
    move_found ! -path ".$state/*"
    move_found
    rm -rf "$root${state:?}/new"
}

# move_found TESTS...: rename what find(1) finds by them
move_found() {
    (
        cd "$root$state/new" || exit 1
        find . ! -type d "$@" | while IFS= read -r prepared; do
            prepared=${prepared#.}
            mkdir -p "$root${prepared%/*}" || exit 1
            mv -f ".$prepared" "$root$prepared" || exit 1
        done
    )
}

# forget_undone: remove what was saved for settings that are no longer owned
forget_undone() {
    while IFS=$tab read -r _ undone_kind undone_path undone_key; do
        is_listed "$root$state/owned.new" "$undone_kind" "$undone_path" "$undone_key" ||
            rm -f "$root$state/before/$(id_of "$undone_kind" "$undone_path" "$undone_key")"
    done <"$(old_list)"
}
