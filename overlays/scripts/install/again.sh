# A look at the owned settings of an installed node: the image's own first boot may have written after
# us. What differs is corrected, each file once a boot: this program does not fight another one.
# Reads: no setting.
# Writes: what has changed of the owned settings; /run/rpi-image-corrected.

# look_again: print the files that were corrected
look_again() {
    [ -z "$failure" ] || return 0
    start_clean
    owned_settings
    leave_corrected
    step files put_in_place
    step 'running system' follow_up
    start_service
    [ -z "$corrected" ] || printf '%s\n' "$corrected"
}

# leave_corrected: take what was corrected in this boot out of what is prepared
leave_corrected() {
    corrected=
    [ -d "$root$state/new" ] || return 0
    for prepared in $(cd "$root$state/new" && find . ! -type d); do
        prepared=${prepared#.}
        if grep -q -x -F -e "$prepared" "$root/run/rpi-image-corrected" 2>/dev/null; then
            rm -f "$root$state/new$prepared"
        else
            corrected="$corrected $prepared"
            printf '%s\n' "$prepared" >>"$root/run/rpi-image-corrected"
        fi
    done
    [ -n "$corrected" ] || rm -rf "$root${state:?}/new"
}
