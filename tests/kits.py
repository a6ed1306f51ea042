"""Joining kits for tests: taken over as `msfl-client join` does, and made anew with a change by who has the key."""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from msfl_client.connection.server_trust import trust_of
from msfl_client.site.kit_approval import approve_kit
from msfl_common.config.site import SiteConfig, load_site
from msfl_common.system.files import write_bytes
from msfl_common.trust.kit import KIT_FILE, SIGNATURE_FILE, parse_kit, read_kit, sign_kit
from msfl_common.trust.kit_archive import unpack_kit


def take_over(archive: Path, site: SiteConfig) -> None:
    """Keep the kit of an archive, approved."""
    put(unpack_kit(archive), site.kit)
    approve_kit(site, parse_kit(unpack_kit(archive), str(archive)))


def put(files: Mapping[str, bytes], folder: Path) -> None:
    """Write the files of a kit, as somebody's hand would."""
    for name, content in files.items():
        write_bytes(folder / name, content)


def private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def changed(files: Mapping[str, bytes], ca_key: Path, **changes: object) -> dict[str, bytes]:
    """A kit with other settings in kit.json, signed by the study's authority."""
    kit = json.loads(files[KIT_FILE]) | changes
    made = {**files, KIT_FILE: json.dumps(kit).encode()}
    return made | {SIGNATURE_FILE: sign_kit(private_key(ca_key), kit["site"], made)}


def trust_at(site_folder: Path) -> ssl.SSLContext:
    """The server that a site's kit has it trust."""
    return trust_of(read_kit(site_folder / "kit"))


def point_kit(site_file: Path, ca_key: Path, address: str) -> None:
    """Have a site's approved kit name another address of the server."""
    site = load_site(site_file)
    put(changed(read_kit(site.kit).files, ca_key, address=address), site.kit)
    approve_kit(site, read_kit(site.kit))
