# Time stamps and JSON strings for logs and status files.
# Reads: no setting.
# Writes: nothing.

now() {
    date -u +%Y-%m-%dT%H:%M:%SZ 2>/dev/null
}

# json TEXT: print TEXT as a JSON string, without what is not printable ASCII
json() {
    printf '"%s"' "$(printf '%s' "$1" | tr '\n\t\r' '   ' | tr -cd '\040-\176' | sed 's/[\\"]/\\&/g')"
}
