# Docker's TLS certificates.
# Reads: DOCKER_TLS.
# Writes: /etc/docker/tls/{ca,cert,key}.pem.

tls_files() {
    for tls in ca cert key; do
        [ -s "$card/tls/$tls.pem" ] || continue
        mkdir -p "$root/etc/docker/tls"
        chmod 700 "$root/etc/docker/tls"
        copy "$card/tls/$tls.pem" "/etc/docker/tls/$tls.pem" 600
    done
    if [ "$DOCKER_TLS" = 1 ]; then
        now_at /etc/docker/tls/key.pem
        [ -s "$found" ] || {
            printf 'docker is set to use TLS, but there is no key.pem\n' >&2
            return 1
        }
    fi
}
