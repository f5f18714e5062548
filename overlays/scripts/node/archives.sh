# Archives of old releases, which have moved. Each line that is changed stays as a comment.
# Reads: no setting.
# Writes: /etc/apt/sources.list, /etc/apt/sources.list.d/*.list.

# old_release: fail if the archives of this release are where the image looks for them
old_release() {
    grep -q -e '^VERSION_CODENAME=\(stretch\|buster\)' -e '^VERSION=.*(\(wheezy\|jessie\|stretch\|buster\))' \
        "$root/etc/os-release" 2>/dev/null
}

# move_archives: write the new places; set $archive_options for apt-get
move_archives() {
    archive_options=
    old_release || return 0
    # the Release files there are not signed again (wiki.debian.org/DebianArchive)
    archive_options='-o Acquire::Check-Valid-Until=false'
    for source_list in "$root/etc/apt/sources.list" "$root"/etc/apt/sources.list.d/*.list; do
        [ -f "$source_list" ] || continue
        while IFS= read -r source_line || [ -n "$source_line" ]; do
            moved_line "$source_line"
        done <"$source_list" >"$source_list.new"
        if cmp -s "$source_list" "$source_list.new"; then
            rm -f "$source_list.new"
        else
            say "the archives in ${source_list#"$root"} have moved"
            mv -f "$source_list.new" "$source_list"
        fi
    done
}

# moved_line LINE: print it with the place of now; third parties of 2015 are gone
moved_line() {
    case $1 in
        deb*//apt.adafruit.com* | deb*//packagecloud.io*)
            printf '# rpi-image: this archive is gone: %s\n' "$1"
            return
            ;;
        deb*) ;;
        *)
            printf '%s\n' "$1"
            return
            ;;
    esac
    moved=$(printf '%s\n' "$1" | sed \
        -e 's#https*://raspbian\.raspberrypi\.org/#http://legacy.raspbian.org/#' \
        -e 's#https*://[a-z]*\.raspbian\.org/#http://legacy.raspbian.org/#' \
        -e 's#https*://security\.debian\.org/\(debian-security\)*/*#http://archive.debian.org/debian-security/#' \
        -e 's#https*://archive\.debian\.org/#http://archive.debian.org/#' \
        -e 's#https*://\(deb\|http\|httpredir\|ftp\.*[a-z]*\)\.debian\.\(org\|net\)/debian#http://archive.debian.org/debian#')
    [ "$moved" = "$1" ] || printf '# rpi-image: this archive has moved: %s\n' "$1"
    printf '%s\n' "$moved"
}
