"""A site's secrets for the masked sums of a study: they are made here, never leave, and go when the study has ended."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from pydantic import ValidationError

from msfl_common.config.base import Frozen
from msfl_common.secure_aggregation.roster import Hex32
from msfl_common.system.files import read_secret, write_bytes

SECRETS_FILE = "secrets.json"


@dataclass(frozen=True)
class MaskSecrets:
    """What all masks of a site follow from.

    Attributes:
        mask_key: X25519; with each other site's public one it gives the masks that the two share.
        secret: 32 bytes, of which the site's own masks and shares come.
    """

    mask_key: X25519PrivateKey = field(repr=False)
    secret: bytes = field(repr=False)

    @property
    def public(self) -> bytes:
        """The public key for masks, raw."""
        return self.mask_key.public_key().public_bytes_raw()


class _File(Frozen):
    mask_key: Hex32
    secret: Hex32


def make_secrets(folder: Path) -> MaskSecrets:
    """Make new ones, mode 0600, in place of those that are there.

    Raises:
        OSError: they cannot be written.
    """
    made = MaskSecrets(X25519PrivateKey.generate(), secrets.token_bytes(32))
    content = _File(mask_key=made.mask_key.private_bytes_raw().hex(), secret=made.secret.hex())
    write_bytes(folder / SECRETS_FILE, content.model_dump_json().encode(), secret=True)
    return made


def read_secrets(folder: Path) -> MaskSecrets | None:
    """Those that are there; None where there are none, or the file is damaged.

    Raises:
        InputError: other accounts may use them.
        OSError: they cannot be read.
    """
    try:
        found = _File.model_validate_json(read_secret(folder / SECRETS_FILE))
    except (FileNotFoundError, NotADirectoryError, ValidationError):
        return None
    return MaskSecrets(X25519PrivateKey.from_private_bytes(bytes.fromhex(found.mask_key)), bytes.fromhex(found.secret))


def delete_secrets(folder: Path) -> None:
    """Delete them: what was masked with them can be opened by nobody any more."""
    (folder / SECRETS_FILE).unlink(missing_ok=True)
