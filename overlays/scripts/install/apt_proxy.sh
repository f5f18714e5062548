# The proxy that apt fetches packages through.
# Reads: APT_PROXY.
# Writes: /etc/apt/apt.conf.d/00rpi-image.

apt_proxy() {
    case $APT_PROXY in
        *://*) put /etc/apt/apt.conf.d/00rpi-image 644 "Acquire::http::Proxy \"$APT_PROXY\";" ;;
        *) put /etc/apt/apt.conf.d/00rpi-image 644 "Acquire::http::Proxy \"http://$APT_PROXY\";" ;;
    esac
}
