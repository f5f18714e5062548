# Files of the boot partition (FAT: no modes, no owners, no journal). New ones are written as *.new
# and renamed after a flush.
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

# boot_prepare NAME TEXT: write NAME.new
boot_prepare() {
    { printf '%s\n' "$2" >"$boot/$1.new"; } 2>/dev/null && return 0
    rm -f "$boot/$1.new"
    printf '%s cannot be written on the boot partition\n' "$1" >&2
    return 1
}

# boot_finish: after a flush, give the prepared files their names
boot_finish() {
    for boot_name in rpi-image/install.log rpi-image/status rpi-image/status.json $boot_natives; do
        [ ! -f "$boot/$boot_name.new" ] || mv -f "$boot/$boot_name.new" "$boot/$boot_name" 2>/dev/null ||
            return 1
    done
}
