"""Masks: random numbers that hide a value, and come to nothing in the sum of all sites, or once they are opened."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

from msfl_common.secure_aggregation.ring import Words, add, negative

_CHUNK = 32768  # numbers at a time: they stay in the processor's cache
_NO_NONCE = bytes(16)  # each seed is used for one stream
_BLOCK = 16


def add_masks(total: Words, plus: Iterable[bytes], minus: Iterable[bytes] = ()) -> None:
    """Add, in place, the masks of the seeds in `plus`, and take away those in `minus`.

    A mask is the stream of AES-256 in counter mode, read as the ring's numbers; a seed is 32 bytes and serves one sum.
    """
    signed = [(_stream(seed), False) for seed in plus] + [(_stream(seed), True) for seed in minus]
    limbs, length = total.shape
    step = _CHUNK if limbs == 1 else max(length, 1)  # a stream of wide numbers is read limb by limb
    zeros, buffer = bytes(8 * limbs * min(step, length)), bytearray(8 * limbs * min(step, length) + _BLOCK)
    for start in range(0, length, step):
        part = total[:, start : start + step]
        num_bytes = 8 * part.size
        for stream, is_negative in signed:
            stream.update_into(memoryview(zeros)[:num_bytes], buffer)
            mask = np.frombuffer(buffer, np.dtype("<u8"), part.size).reshape(part.shape)
            if limbs > 1:
                add(part, negative(mask) if is_negative else mask)
            elif is_negative:
                part -= mask
            else:
                part += mask


def _stream(seed: bytes) -> CipherContext:
    return Cipher(algorithms.AES(seed), modes.CTR(_NO_NONCE)).encryptor()
