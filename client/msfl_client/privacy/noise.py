"""A site's own noise: drawn from a secret that never leaves, and the same when the same is asked again.

The secret, 32 bytes in `privacy/secret` of the state folder, makes one key for each release with all that its answer
follows from: settings, round, weights, cases. A round that is trained again after a kill so gets the same noise, and
the same bytes leave; a release of anything else gets noise that is independent of it, as the difference of two answers
with one noise would tell all that the noise hides. The key's streams are AES-256 in counter mode, one for each use and
step.

Normal values are Box and Muller's of 53-bit uniform ones. Nothing is done against who reads the last digits of
floating-point noise (Mironov 2012).
"""

from __future__ import annotations

import hashlib
import hmac
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from numpy.typing import NDArray

from msfl_common.errors import InputError
from msfl_common.system.files import private_folder, read_secret, write_bytes

if TYPE_CHECKING:
    import torch

FOLDER = "privacy"
_SECRET = "secret"
_NUM_BYTES = 32


@dataclass(frozen=True)
class Noise:
    """The draws of one release."""

    key: bytes

    @property
    def digest(self) -> str:
        """Names the release; tells nothing of its draws."""
        return hashlib.sha256(b"release" + self.key).hexdigest()

    def uniforms(self, use: str, step: int, count: int) -> NDArray[np.float64]:
        """Between 0 and 1, both excluded."""
        uniforms: NDArray[np.float64] = ((self._bits(use, step, count) >> np.uint64(11)) + 0.5) * 2.0**-53
        return uniforms

    def normals(self, use: str, step: int, count: int, device: torch.device) -> torch.Tensor:
        """Standard normal, float32, on a device; computed there in float64, where it has that."""
        import torch  # seconds; who only reads what is spent needs none of it

        half = -(-count // 2)
        computed_on = torch.device("cpu") if device.type == "mps" else device
        bits = torch.from_numpy((self._bits(use, step, 2 * half) >> np.uint64(11)).astype(np.int64))
        uniforms = (bits.to(computed_on).double() + 0.5) * 2.0**-53
        radius, angle = (-2 * uniforms[:half].log()).sqrt(), uniforms[half:] * (2 * math.pi)
        normals = torch.cat([radius * angle.cos(), radius * angle.sin()])[:count]
        return normals.float().to(device)

    def _bits(self, use: str, step: int, count: int) -> NDArray[np.uint64]:
        key = hmac.digest(self.key, f"{use}:{step}".encode(), "sha256")
        stream = Cipher(AES(key), CTR(bytes(16))).encryptor().update(bytes(8 * count))
        return np.frombuffer(stream, dtype="<u8")


def noise_of(state: Path, said: bytes) -> Noise:
    """A site's noise for one release.

    Args:
        state: the site's state folder; its secret is made where there is none.
        said: all that the answer follows from, or its digest.

    Raises:
        InputError: the secret cannot be used, or other accounts may read it.
        OSError: it cannot be written.
    """
    return Noise(hmac.digest(_secret_of(state), said, "sha256"))


def _secret_of(state: Path) -> bytes:
    path = state / FOLDER / _SECRET
    private_folder(path.parent, within=state)
    if not path.exists():
        write_bytes(path, os.urandom(_NUM_BYTES), secret=True)
    secret = read_secret(path)
    if len(secret) != _NUM_BYTES:
        raise InputError(f"{path}: expected {_NUM_BYTES} bytes, found {len(secret)}; move it away, and another is made")
    return secret
