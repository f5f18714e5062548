"""Who may do what in the shack's consul, if the ledger of a class with many stations is there."""

from __future__ import annotations

import hashlib
import json
import uuid
from typing import TYPE_CHECKING

from imagebuilder.errors import SettingsError
from imagebuilder.model import image_version
from imagebuilder.shack.claim_store import PREFIX as CLAIMS
from imagebuilder.shack.node_progress import PREFIX as NODES
from imagebuilder.shack.services import swarm_path

if TYPE_CHECKING:
    from imagebuilder.model import Classroom, Secret, Shack
    from imagebuilder.shack.keystore import ConsulTokens

_ACL = (1, 5)  # tokens with a given SecretID (its changelog)
_INITIAL_MANAGEMENT = (1, 11)  # was called `master` before
_JOIN_TOKENS = "rpi-image/swarm/"
CLASS_POLICY, LEDGER_POLICY, NODES_POLICY = "rpi-image-class", "rpi-image-ledger", "rpi-image-nodes"
FOLDER = "acl"
TOKENS = ("ledger", "nodes")


def acl_settings(shack: Shack, tokens: ConsulTokens) -> dict[str, object]:
    """Return consul's own settings. Raise SettingsError for a consul that is too old."""
    version = image_version(shack.consul_image)
    if version < _ACL:
        raise SettingsError(
            f"{shack.consul_image} has no ACL tokens, which `ledger.consul` needs",
            "use consul 1.5 or later in shack.images.consul",
        )
    first = "initial_management" if version >= _INITIAL_MANAGEMENT else "master"
    secret = tokens.management.reveal()
    return {
        "enabled": True,
        "default_policy": "deny",
        "tokens": {first: secret, "agent": secret},
    }


def access_files(classroom: Classroom, shack: Shack, tokens: ConsulTokens) -> dict[str, str]:
    """Return the files that `consul-acl` sends, by path; those of tokens are secret."""
    rules = _rules(classroom, shack)
    secrets = {"ledger": tokens.ledger, "nodes": tokens.nodes}
    files = {f"{name}.policy": _json(Name=name, Rules=text) for name, text in rules.items()}
    files |= {f"{name}.token": _token(secrets[name], f"rpi-image-{name}") for name in TOKENS}
    files |= {f"{name}.id": accessor_of(secrets[name]) for name in TOKENS}
    files["anonymous.token"] = _json(Policies=[{"Name": CLASS_POLICY}])
    # For `curl -K`, because everyone on this machine can read arguments.
    files["curl"] = f'header = "X-Consul-Token: {tokens.management.reveal()}"\n'
    return {f"{FOLDER}/{name}": text for name, text in files.items()}


def _rules(classroom: Classroom, shack: Shack) -> dict[str, str]:
    """Return the rules of each policy.

    The class joins without a token, as its agents of 2015 do. Nobody in it can end a session of a
    station, which belongs to the node of the shack.
    """
    host = json.dumps(shack.hostname)
    everyone = [
        *(_rule(f"{kind}_prefix", '""', "write") for kind in ("node", "service", "session")),
        *(_rule(kind, host, "read") for kind in ("node", "session")),
        _rule("agent_prefix", '""', "read"),
        _rule("key_prefix", json.dumps(swarm_path(classroom)), "write"),
        _rule("key_prefix", json.dumps(NODES), "read"),
        _rule("key_prefix", json.dumps(_JOIN_TOKENS), "read"),
        _rule("key_prefix", json.dumps(CLAIMS), "deny"),
    ]
    ledger = [_rule("key_prefix", json.dumps(CLAIMS), "write"), _rule("session", host, "write")]
    return {
        CLASS_POLICY: "\n".join(everyone),
        LEDGER_POLICY: "\n".join(ledger),
        NODES_POLICY: _rule("key_prefix", json.dumps(NODES), "write"),
    }


def _rule(kind: str, name: str, policy: str) -> str:
    return f'{kind} {name} {{ policy = "{policy}" }}'


def _token(secret: Secret, policy: str) -> str:
    return _json(
        AccessorID=accessor_of(secret),
        SecretID=secret.reveal(),
        Description=policy,
        Policies=[{"Name": policy}],
    )


def accessor_of(secret: Secret) -> str:
    """Return the public name of a token, always the same one."""
    digest = hashlib.sha256(secret.reveal().encode()).digest()
    return str(uuid.UUID(bytes=digest[:16], version=4))


def _json(**values: object) -> str:
    return json.dumps(values) + "\n"
