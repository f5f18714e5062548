"""Make and check certificates and keys of a class, in memory."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from imagebuilder.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

CA_DAYS = 3650
LEAF_DAYS = 730
RENEW_DAYS = 30

# A Pi has no battery-backed clock and starts with the build time: certificates must be valid then.
BACKDATE = timedelta(days=1)
SERVER = (ExtendedKeyUsageOID.SERVER_AUTH,)
CLIENT = (ExtendedKeyUsageOID.CLIENT_AUTH,)
MANAGER = (*SERVER, *CLIENT)


@dataclass(frozen=True, slots=True)
class CertificateSubject:
    """The subject of a certificate: its name, uses, DNS names and IP addresses."""

    name: str
    uses: tuple[x509.ObjectIdentifier, ...]
    dns: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Authority:
    """The CA of the class; its key stays in the secrets folder."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def issue_ca(class_name: str, key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    """Return a self-signed CA certificate, valid CA_DAYS; it may only sign certificates."""
    name = _x509_name(f"{class_name[:40]} class CA")
    usage = _key_usage(certify=True)
    return (
        _builder(name, name, key.public_key(), now, CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def issue(
    subject: CertificateSubject, key: ec.EllipticCurvePrivateKey, ca: Authority, now: datetime
) -> x509.Certificate:
    """Return a certificate for `subject`, valid LEAF_DAYS from `now`."""
    issuer_key = ca.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    builder = (
        _builder(_x509_name(subject.name), ca.certificate.subject, key.public_key(), now, LEAF_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(certify=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(subject.uses), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_key.value),
            critical=False,
        )
    )
    if names := _alternatives(subject):
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(ca.key, hashes.SHA256())


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime,
    days: int,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + timedelta(days=days))
    )


def still_serves(
    pem: bytes,
    subject: CertificateSubject,
    key: ec.EllipticCurvePrivateKey,
    ca: Authority,
    now: datetime,
) -> bool:
    """Return whether a certificate matches key, CA and subject and is valid RENEW_DAYS more."""
    try:
        kept = x509.load_pem_x509_certificate(pem)
        kept.verify_directly_issued_by(ca.certificate)
        uses = kept.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        names = _names_of(kept)
    except (ValueError, InvalidSignature, x509.ExtensionNotFound):
        return False
    return (
        kept.public_key() == key.public_key()
        and kept.not_valid_after_utc - now > timedelta(days=RENEW_DAYS)
        and set(names) == set(_alternatives(subject))
        and set(uses) == set(subject.uses)
    )


def _names_of(certificate: x509.Certificate) -> list[x509.GeneralName]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return list(found.value)


def _alternatives(subject: CertificateSubject) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in subject.dns]
    return names + [x509.IPAddress(ipaddress.ip_address(text)) for text in subject.addresses]


def _x509_name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _key_usage(*, certify: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certify,
        crl_sign=certify,
        encipher_only=False,
        decipher_only=False,
    )


def load_authority(certificate: bytes, key: bytes | None, folder: Path, now: datetime) -> Authority:
    """Return the stored CA of the class. Raise SettingsError if it is damaged or expired.

    It is never replaced by a new one: all cards written so far trust the old one.
    """
    again = f"remove the folder {folder}, and write the shack and all cards again"
    restore = f"restore {folder} from a copy; without one, {again}"
    if key is None:
        raise SettingsError(f"the key of the class CA is missing: {folder / 'key.pem'}", restore)
    try:
        kept = x509.load_pem_x509_certificate(certificate)
        private = load_key(key, folder / "key.pem")
    except ValueError as error:
        raise SettingsError(f"{folder / 'cert.pem'} is not a certificate", restore) from error
    except SettingsError as error:
        raise SettingsError(error.message, restore) from error
    if not isinstance(private, ec.EllipticCurvePrivateKey) or (
        private.public_key() != kept.public_key()
    ):
        raise SettingsError(f"{folder / 'key.pem'} is not the key of its certificate", restore)
    if kept.not_valid_after_utc <= now:
        raise SettingsError(f"the class CA expired on {kept.not_valid_after_utc:%Y-%m-%d}", again)
    return Authority(kept, private)


# ---- PEM and OpenSSH texts


def new_ed25519() -> bytes:
    """Return a new ed25519 private key in OpenSSH format."""
    return ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )


def new_ecdsa() -> bytes:
    """Return a new P-256 private key in PEM format, which OpenSSH 6.0 can read."""
    return private_pem(ec.generate_private_key(ec.SECP256R1()))


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key as SEC 1 PEM."""
    # OpenSSH 6.0 and Go 1.4 (Docker 1.6) can read SEC 1.
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )


def certificate_pem(certificate: x509.Certificate) -> bytes:
    """Return a certificate as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def ssh_public(private: bytes, path: Path) -> str:
    """Return the public half of a private key as `<kind> <base64>`."""
    key = load_key(private, path)
    return (
        key.public_key()
        .public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        .decode()
    )


def load_key(data: bytes, path: Path) -> ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey:
    """Return a private key. Raise SettingsError with `path` if it is not valid."""
    load = (
        serialization.load_ssh_private_key
        if b"OPENSSH" in data
        else serialization.load_pem_private_key
    )
    try:
        key = load(data, None)
    except (ValueError, TypeError) as error:
        raise unreadable(path) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
        raise unreadable(path)
    return key


def unreadable(path: Path) -> SettingsError:
    """Return the error for a file that does not hold a key of this program."""
    return SettingsError(
        f"{path} is not a key of this class",
        "restore it from a copy, or remove it to make a new one",
    )
