# Files of the boot partition (FAT: no modes, no owners).
# Reads: no setting.
# Writes: the files that its callers name, below the mount point of the boot partition.

# writable FOLDER: check by writing; a mount option does not tell
writable() {
    (: >"$1/.rpi-image.try") 2>/dev/null && rm -f "$1/.rpi-image.try"
}

# open_boot: make the boot partition writable again; after an error on a FAT volume the kernel
# remounts it read-only (mount option errors=remount-ro, the default of vfat)
open_boot() {
    writable "$here" || on_machine mount -n -o remount,rw "$boot" 2>/dev/null
}

# boot_put NAME TEXT: as put, for a file of the boot partition
boot_put() {
    part=$boot/$1.new
    {
        if printf '%s\n' "$2" >"$part" && sync && mv -f "$part" "$boot/$1"; then
            sync
            return 0
        fi
        rm -f "$part"
        return 1
    } 2>/dev/null
}

# scrub_file PATH FILTER: replace a file by what FILTER makes of it, if that differs
scrub_file() {
    [ -f "$boot/$1" ] || return 0
    scrub_text=$("$2" <"$boot/$1")
    [ -n "$scrub_text" ]
    [ "$scrub_text" != "$(cat "$boot/$1")" ] || return 0
    boot_put "$1" "$scrub_text" || {
        printf 'secrets stay in %s: it cannot be written\n' "$1" >&2
        return 1
    }
}
