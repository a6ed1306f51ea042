"""Masks: random numbers that hide a value, and come to nothing in the sum of all sites, or once they are opened."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

from msfl_common.secure_aggregation.ring import Words, add, negative

_CHUNK = 16384  # numbers at a time: they, a mask and the zeros that it is made of stay in the processor's cache
_NO_NONCE = bytes(16)  # each seed is used for one stream
_BLOCK = 16


def add_masks(total: Words, plus: Iterable[bytes], minus: Iterable[bytes] = ()) -> None:
    """Add, in place, the masks of the seeds in `plus`, and take away those in `minus`.

    A mask is the stream of AES-256 in counter mode, read as the ring's numbers; a seed is 32 bytes and serves one sum.
    """
    plus_streams, minus_streams = [[_stream(seed) for seed in seeds] for seeds in (plus, minus)]
    limbs, length = total.shape
    numbers = total[0] if limbs == 1 else total  # adds of vectors take NumPy less than those of a matrix of one row
    step = _CHUNK if limbs == 1 else max(length, 1)  # a stream of wide numbers is read limb by limb
    zeros, buffer = memoryview(bytes(8 * limbs * min(step, length))), bytearray(8 * limbs * min(step, length) + _BLOCK)
    for start in range(0, length, step):
        part = numbers[..., start : start + step]
        mask = np.frombuffer(buffer, np.dtype("<u8"), part.size).reshape(part.shape)
        nothing = zeros[: 8 * part.size]
        for stream in plus_streams:
            stream.update_into(nothing, buffer)
            if limbs == 1:
                part += mask
            else:
                add(part, mask)
        for stream in minus_streams:
            stream.update_into(nothing, buffer)
            if limbs == 1:
                part -= mask
            else:
                add(part, negative(mask))


def _stream(seed: bytes) -> CipherContext:
    return Cipher(algorithms.AES(seed), modes.CTR(_NO_NONCE)).encryptor()
