# What runs on this image.
# Reads: no setting.
# Writes: nothing.

# is_running: systemd runs here by now; early hooks run before it
is_running() {
    [ -d "$root/run/systemd/system" ]
}
