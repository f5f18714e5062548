"""Checks of addresses, ports and URLs in settings documents."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import SplitResult, urlsplit

from imagebuilder.settings.schema.diagnostics import invalid

LAST_PORT = 65535


def ip_address(value: str) -> str:
    """Check an IPv4 or IPv6 address; return its canonical form."""
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise invalid(f"`{value}` is not an IP address", "for example 192.168.2.1") from None


def ip_interface(value: str) -> str:
    """Check an address with or without prefix length, for example 192.168.2.101/24."""
    try:
        ipaddress.ip_interface(value)
    except ValueError:
        raise invalid(f"`{value}` is not an IP address", "for example 192.168.2.101/24") from None
    return value


def ip_network(value: str) -> str:
    """Check a subnet; its host bits must be zero."""
    try:
        return str(ipaddress.ip_network(value))
    except ValueError:
        try:
            better = ipaddress.ip_network(value, strict=False)
        except ValueError:
            raise invalid(f"`{value}` is not a subnet", "for example 192.168.2.0/24") from None
        raise invalid(f"`{value}` is an address, not a subnet", f"use {better}") from None


def ip_range(value: str) -> str:
    """Check `FIRST-LAST`: two addresses of the same family, in order."""
    first, _, last = (part.strip() for part in value.partition("-"))
    try:
        ends = ipaddress.ip_address(first), ipaddress.ip_address(last)
        in_order = ends[0].version == ends[1].version and int(ends[0]) <= int(ends[1])
    except ValueError:
        in_order = False
    if not in_order:
        raise invalid(
            f"`{value}` is not an address range", "for example 192.168.2.200-192.168.2.250"
        )
    return f"{first}-{last}"


def port(value: int) -> int:
    """Check a TCP port."""
    if not 1 <= value <= LAST_PORT:
        raise invalid(f"{value} is not a port", f"use 1 to {LAST_PORT}")
    return value


def host_port(value: str) -> str:
    """Check HOST:PORT of a registry: no scheme, no path."""
    if "://" in value:
        raise invalid(f"`{value}` is a URL", "use HOST:PORT without a scheme")
    host, colon, number = value.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if (
        not colon
        or not re.fullmatch(r"[0-9]{1,5}", number)
        or not re.fullmatch(r"[A-Za-z0-9.:-]+", bare)
    ):
        raise invalid(f"`{value}` is not HOST:PORT", "for example 192.168.2.1:5000")
    port(int(number))
    return value


def url(value: str) -> str:
    """Check an http or https URL without spaces and quotes."""
    _url_parts(value)
    return value


def _url_parts(value: str) -> SplitResult:
    """Return the parts of a URL; errors do not show it, because it may contain a password."""
    fault = invalid("this is not an http or https URL", "for example http://192.168.2.1:3142")
    if not re.fullmatch(r"https?://[^\s/\"'`$\\]+[^\s\"'`$\\]*", value):
        raise fault
    try:
        parts = urlsplit(value)
        numbered = parts.port is None or 1 <= parts.port <= LAST_PORT
    except ValueError:
        raise fault from None
    if not (parts.hostname and numbered):
        raise fault
    return parts


def mirror(value: str) -> str:
    """Check a registry mirror: dockerd allows nothing after host and port (ValidateMirror).

    A final `/` is removed, because dockerd before 1.10 does not allow that either.
    """
    parts = _url_parts(value.removesuffix("/"))
    if parts.path or "?" in value or "#" in value or "@" in parts.netloc:
        raise invalid("a mirror has only host and port", "for example http://192.168.2.1:5001")
    return value.removesuffix("/")


def consul(value: str) -> str:
    """Check the address of a consul: http, host and port."""
    parts = _url_parts(value.removesuffix("/"))
    if parts.scheme != "http" or parts.path or set(value) & set("?#@"):
        raise invalid(
            "a consul has only http, host and port", "for example http://192.168.2.1:8500"
        )
    return value.removesuffix("/")


def proxy(value: str) -> str:
    """Check a URL; an empty value means no proxy."""
    return url(value) if value else value


def mac(value: str) -> str:
    """Check a MAC address; return it as aa:bb:cc:dd:ee:ff."""
    digits = re.sub(r"[:.-]", "", value).lower()
    if not re.fullmatch(r"[0-9a-f]{12}", digits):
        raise invalid(f"`{value}` is not a MAC address", "for example b8:27:eb:12:34:56")
    return ":".join(digits[i : i + 2] for i in range(0, 12, 2))
