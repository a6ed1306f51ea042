"""One seed for everything; each use draws its own stream from it."""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, *parts: str | int) -> int:
    """A 32-bit seed for one purpose, for example `derive_seed(study.seed, "weights")`.

    Equal arguments give equal seeds on every machine; different ones are independent for all practical ends.
    """
    text = "\x1f".join(str(part) for part in (seed, *parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
