"""What the programs of an image can do: verify a password hash, join a network."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from imagebuilder.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Collection

# The methods of crypt(5) by the prefix of their hashes. The glibc of Debian up to buster knows the
# first three; bullseye's libxcrypt the others as well.
CRYPT = {
    "1": "md5crypt",
    "5": "sha256crypt",
    "6": "sha512crypt",
    "7": "scrypt",
    "y": "yescrypt",
    "gy": "gost-yescrypt",
    "2a": "bcrypt",
    "2b": "bcrypt",
    "2y": "bcrypt",
}
HASH_HINT = "make one with `openssl passwd -6`"


def crypt_method(password_hash: str) -> str:
    """Return the method of a hash in the format of crypt(3); empty if it is not known."""
    found = re.match(r"\$([^$]*)\$", password_hash)
    return CRYPT.get(found[1], "") if found else ""


def password_fault(password_hash: str, methods: Collection[str]) -> str:
    """Return why an image with these methods cannot verify a hash; empty if it can."""
    method = crypt_method(password_hash)
    if not method or method in methods:
        return ""
    prefix = password_hash[: password_hash.index("$", 1) + 1]
    return f"the password hash is {method} ({prefix}), which the libc of the image cannot verify"


def check_password(user: str, password_hash: str, methods: Collection[str]) -> None:
    """Raise SettingsError if nobody could log in with this hash."""
    if fault := password_fault(password_hash, methods):
        raise SettingsError(f"user {user}: {fault}", HASH_HINT)
