"""The YAML documents of the user: classroom, node, profile and catalogue of base images.

Unknown keys are errors. An empty key counts as not set, except if that is dangerous (an empty
passphrase does not make an open network). Paths are relative to the file that contains them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import Field, ValidationError, field_validator, model_validator

from imagebuilder.model import WifiSecurity
from imagebuilder.settings.schema import fields as f
from imagebuilder.settings.schema.base import Document, SecretDocument, TextOrDocument
from imagebuilder.settings.schema.diagnostics import Diagnostic, explain, invalid
from imagebuilder.settings.schema.json_schema import one_or_many_of

if TYPE_CHECKING:
    from pathlib import Path


Service = Literal["registry", "mirror", "apt", "ntp", "web"]
SERVICES: tuple[Service, ...] = ("registry", "mirror", "apt", "ntp", "web")

# Prefix of top-level keys that are ignored, for anchors; as in compose files.
ASIDE = "x-"
IMAGE_SUFFIXES = (".img", ".zip", ".gz", ".xz", ".zst", ".bz2", ".raw", ".iso")


def classify_image(text: str) -> Literal["url", "file", "name"]:
    """Return whether `text` is a URL, a path or the name of a catalogue entry."""
    if re.match(r"https?://", text, re.IGNORECASE):
        return "url"
    if "/" in text or "\\" in text or text.startswith("~") or text.endswith(IMAGE_SUFFIXES):
        return "file"
    return "name"


class ImageDocument(TextOrDocument):
    """A base image: by name from the catalogue, from a local file, or from a URL.

    A name with a URL is a pinned image of a published list: it is not looked up again.
    """

    whole: ClassVar[bool] = True

    name: f.ImageName | None = None
    file: f.HostPath | None = None
    url: f.Url | None = None
    sha256: f.Sha256 | None = Field(None, description="of the file as downloaded (the zip)")
    raw_sha256: f.Sha256 | None = Field(None, description="of the unpacked image")
    raw_size_bytes: f.ImageSize | None = Field(None, description="of the unpacked image")
    checksum_url: f.Url | None = None
    init_format: f.Word | None = Field(None, description="how a published image takes settings")
    unchecked: bool = Field(default=False, description="use the image without any checksum")

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, data: Any) -> Any:
        return {classify_image(data): data} if isinstance(data, str) else data

    @field_validator("file", mode="before")
    @classmethod
    def _no_address(cls, value: Any) -> Any:
        if isinstance(value, str) and re.match(r"[a-z][a-z0-9+.-]+://", value, re.IGNORECASE):
            raise invalid("the URL is not http or https", "use one of these, or a local file")
        return value

    @model_validator(mode="after")
    def _one_source(self) -> ImageDocument:
        sources = (self.name if not self.url else None, self.file, self.url)
        if sum(bool(source) for source in sources) != 1:
            raise invalid("an image needs exactly one of name, file and url", "keep one of them")
        return self


class PortsDocument(Document):
    """Ports of the shack's services."""

    consul: f.Port | None = None
    swarm: f.Port | None = None
    registry: f.Port | None = None
    mirror: f.Port | None = None
    apt: f.Port | None = None
    web: f.Port | None = None


class ShackImagesDocument(Document):
    """Container images of the shack's services; apt and ntp are built there if they are empty."""

    consul: f.ImageReference | None = None
    swarm: f.ImageReference | None = None
    registry: f.ImageReference | None = None
    apt: f.ImageReference | None = None
    ntp: f.ImageReference | None = None
    web: f.ImageReference | None = None


class ShackDocument(Document):
    """The instructor's machine, whose services the nodes use."""

    address: f.Address | None = None
    hostname: f.Hostname | None = None
    kind: Literal["classic", "swarm-mode"] | None = None
    ports: PortsDocument | None = None
    images: ShackImagesDocument | None = None
    services: tuple[Service, ...] | None = Field(
        None, description="the services to run; all if the key is missing"
    )


class WifiNetworkDocument(Document):
    """One wireless network; without a passphrase it is open."""

    never_empty: ClassVar[frozenset[str]] = frozenset({"passphrase"})

    ssid: f.Ssid
    passphrase: SecretDocument | None = Field(
        None, description="8 to 63 bytes, or the 64 hex digits of a PSK"
    )
    security: WifiSecurity | None = Field(None, description="wpa2 with a passphrase, else open")
    hidden: bool = False
    priority: Annotated[int, Field(ge=0, le=999)] | None = None

    @field_validator("passphrase", mode="before")
    @classmethod
    def _not_empty(cls, value: Any) -> Any:
        if value is None or value == "":
            raise invalid("the passphrase is empty", "remove the key for an open network")
        return value


class WifiDocument(Document):
    """Networks in order of preference, and the country of the radio rules."""

    country: f.Country | None = None
    networks: tuple[WifiNetworkDocument, ...] | None = None


class NetworkDocument(Document):
    """The wired network; DHCP if there is no address."""

    interface: f.NetworkDevice | None = None
    address: f.Interface | None = None
    gateway: f.Address | None = None
    dns: Annotated[tuple[f.Address, ...], one_or_many_of(f.Address)] | None = None
    subnet: f.Subnet | None = None
    dhcp_range: f.AddressRange | None = None


class DockerDocument(Document):
    """The options of dockerd, written to DOCKER_OPTS, and whether it is installed."""

    install: Literal["auto", "never", "always"] | None = Field(
        None, description="auto where the image has no Docker"
    )
    version: f.Version | None = Field(None, description="the version to install, or its beginning")
    storage_driver: f.StorageDriver | None = None
    debug: bool | None = None
    tcp: bool | None = Field(None, description="serve the API on the network")
    port: f.Port | None = None
    tls: bool | None = None
    labels: f.Labels | None = None
    insecure_registries: tuple[f.HostPort, ...] | None = None
    registry_mirrors: tuple[f.Mirror, ...] | None = None
    extra: tuple[f.Word, ...] | None = Field(None, description="more words of DOCKER_OPTS")


class ConsulDocument(Document):
    """The consul agent of a node."""

    renews: ClassVar[tuple[tuple[str, str], ...]] = (("image", "version"),)

    image: f.ImageReference | None = None
    version: f.Version | None = None
    server: bool | None = None
    bootstrap_expect: Annotated[int, Field(ge=0, le=99)] | None = None
    encrypt: SecretDocument | None = None
    dns: bool | None = None


class SwarmDocument(Document):
    """The Swarm agent of a node."""

    renews: ClassVar[tuple[tuple[str, str], ...]] = (("image", "version"), ("image", "enabled"))

    enabled: bool | None = None
    image: f.ImageReference | None = None
    version: f.Version | None = None
    path: f.KeyValuePath | None = None


class ClusterDocument(Document):
    """The agents that join a node to the cluster of the shack."""

    enabled: bool | None = None
    consul: ConsulDocument | None = None
    swarm: SwarmDocument | None = None
    images: tuple[f.ImageReference, ...] | None = Field(None, description="to pull at first boot")
    tarballs: tuple[f.HostPath, ...] | None = Field(None, description="to load at first boot")


class UserDocument(Document):
    """A user to create; a plain password is hashed before it is written to a card."""

    exclusive: ClassVar[tuple[frozenset[str], ...]] = (frozenset({"password", "password_hash"}),)

    name: f.UserName | None = None
    password: SecretDocument | None = None
    password_hash: f.PasswordHash | None = None
    groups: tuple[f.Group, ...] | None = None

    @model_validator(mode="after")
    def _one_password(self) -> UserDocument:
        if self.password and self.password_hash:
            raise invalid("a user has both password and password_hash", "keep one of them")
        return self


class KeyDocument(TextOrDocument):
    """SSH public keys: one line, or a file of lines."""

    file: f.HostPath | None = None
    text: Annotated[str, f.AfterValidator(f.public_key)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, data: Any) -> Any:
        return {"text": data} if isinstance(data, str) else data

    @model_validator(mode="after")
    def _one_source(self) -> KeyDocument:
        if (self.file is None) == (self.text is None):
            raise invalid(
                "expected a public key or {file: PATH}",
                "for example {file: ~/.ssh/id_ed25519.pub}",
            )
        return self


class SettingsDocument(Document):
    """The settings of a class, which a profile or a node may have as well."""

    image: ImageDocument | None = None
    generation: f.Slug | None = None
    shack: ShackDocument | None = None
    wifi: WifiDocument | None = None
    network: NetworkDocument | None = None
    docker: DockerDocument | None = None
    cluster: ClusterDocument | None = None
    user: UserDocument | None = None
    ssh_keys: Annotated[tuple[KeyDocument, ...], one_or_many_of(KeyDocument)] | None = None
    keep_vendor_login: bool | None = None
    keep_host_keys: bool | None = None
    timezone: f.Timezone | None = None
    keyboard: f.Keyboard | None = None
    locale: f.Locale | None = None
    packages: Annotated[tuple[f.PackageName, ...], one_or_many_of(f.PackageName)] | None = Field(
        None, description="packages to install at first boot"
    )
    apt_proxy: f.Proxy | None = None
    ntp_server: f.NtpServer | None = None
    upgrade: bool | None = None
    overlays: Annotated[tuple[f.HostPath, ...], one_or_many_of(f.HostPath)] | None = None
    set: f.Variables | None = None


class NodeDocument(SettingsDocument):
    """One node of the roster, with what differs from the class."""

    hostname: f.Hostname
    profile: f.Slug | None = None
    board: f.BoardWord | None = None
    address: f.Interface | None = Field(None, description="short for network: {address: …}")
    labels: f.Labels | None = Field(None, description="short for docker: {labels: …}")
    serial: f.Serial | None = None
    mac: f.Mac | None = None
    seat: f.Text | None = None
    owner: f.Text | None = None


class LedgerDocument(Document):
    """Where several computers that write cards of one class keep their claims."""

    consul: f.ConsulAddress | None = Field(None, description="of the shack, with ACLs")


class ClassroomDocument(SettingsDocument):
    """A classroom file; keys that begin with `x-` are ignored, for anchors."""

    begins: ClassVar[str] = "begin with `profile: armv7`, or use `rpi-image init`"

    name: f.Text | None = None
    profile: f.Slug | None = None
    catalog: f.ListPlace | None = Field(None, description="a published list of images")
    board: f.BoardWord | None = None
    secrets: f.HostPath | None = None
    ledger: LedgerDocument | None = None
    allow: tuple[f.WarningWord, ...] | None = Field(None, description="warnings to acknowledge")
    nodes: tuple[NodeDocument, ...] = ()
    nodes_from: f.HostPath | None = Field(None, description="a CSV file of nodes")


class ProfileDocument(SettingsDocument):
    """A board family: its name in Docker labels, and the default settings of its nodes."""

    name: str = ""
    description: f.Text = ""
    arch: f.Word
    machines: tuple[f.Word, ...] = Field(description="values of `uname -m`")
    boards: tuple[f.Text, ...] = ()


AnyDocument = TypeVar("AnyDocument", bound=Document)


def parse_document(
    model: type[AnyDocument], data: object, *, folder: Path, home: str = ""
) -> tuple[AnyDocument | None, tuple[Diagnostic, ...]]:
    """Return the document made of `data`, or None and a diagnostic for every error."""
    if not isinstance(data, dict):
        return None, (Diagnostic((), "expected a mapping (`key: value`)", model.begins),)
    try:
        return model.model_validate(data, context={"folder": folder, "home": home}), ()
    except ValidationError as error:
        return None, explain(error, model)
