# The user's own scripts in rpi-image/first-boot.
# Reads: RPI_IMAGE_HASH.
# Writes: /var/lib/rpi-image/first-boot, /var/lib/rpi-image/done.

# own_scripts: run each script once per configuration; a failure is a warning. The output goes
# through a file: a pipe stays open as long as any process that the script has started.
own_scripts() {
    alone=
    if command -v setsid >/dev/null 2>&1; then
        alone=setsid
    fi
    for script in "$here"/first-boot/*; do
        [ -f "$script" ] || continue
        script_name=${script##*/}
        script_mark=$state/done/$RPI_IMAGE_HASH/first-boot/$script_name
        [ ! -e "$root$script_mark" ] || continue
        script_here=$root$state/first-boot/$script_name
        mkdir -p "${script_here%/*}"
        cp "$script" "$script_here"
        chmod 700 "$script_here"
        script_shell="sh"
        case $(head -n 1 "$script" | tr -d '\000') in
            '#!'*) script_shell= ;;
        esac
        script_code=0
        # shellcheck disable=SC2086 # none or one word each
        limit 300 $alone $script_shell "$script_here" >"$script_here.log" 2>&1 || script_code=$?
        tail -c 12000 "$script_here.log" >&2
        note "$script_mark" "$script_code"
        [ "$script_code" = 0 ] ||
            printf 'warning: first-boot/%s ended with %s\n' "$script_name" "$script_code" >&2
    done
}
