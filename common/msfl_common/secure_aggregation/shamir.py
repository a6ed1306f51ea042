"""Shamir's sharing of a secret: any `threshold` shares tell it, fewer tell nothing (doi 10.1145/359168.359176)."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from functools import lru_cache

SECRET_BYTES = 32
SHARE_BYTES = 33
_PRIME = 2**256 + 297  # the smallest prime above every secret


def split(secret: bytes, threshold: int, places: Sequence[int], seed: bytes) -> dict[int, bytes]:
    """Shares of a secret, by place.

    Args:
        secret: 32 bytes.
        threshold: how many shares tell it.
        places: of the holders, distinct and from 1 on.
        seed: where the polynomial comes from, a secret itself, for this one alone; the same gives the same shares.
    """
    coefficients = [int.from_bytes(secret, "big")]
    coefficients += [_coefficient(seed, number) for number in range(1, threshold)]
    return {place: _at(coefficients, place).to_bytes(SHARE_BYTES, "big") for place in places}


def join(shares: Mapping[int, bytes]) -> bytes | None:
    """The secret that these shares tell, by place, if each is right; None where they tell none of 32 bytes."""
    value = _between(shares, 0)
    return value.to_bytes(SECRET_BYTES, "big") if value < 2**256 else None


def is_on(shares: Mapping[int, bytes], place: int, share: bytes) -> bool:
    """Whether a share lies on the polynomial that the others, `threshold` of them, tell."""
    return _between(shares, place) == int.from_bytes(share, "big")


def _between(shares: Mapping[int, bytes], at: int) -> int:
    factors = _factors(tuple(shares), at)
    return sum(int.from_bytes(share, "big") * one for share, one in zip(shares.values(), factors, strict=True)) % _PRIME


@lru_cache(maxsize=256)  # one group of holders opens all seeds of a sum
def _factors(places: tuple[int, ...], at: int) -> tuple[int, ...]:
    """By what Lagrange's formula multiplies each share."""
    factors = []
    for place in places:
        above = below = 1
        for other in places:
            if other != place:
                above = above * (at - other) % _PRIME
                below = below * (place - other) % _PRIME
        factors.append(above * pow(below, -1, _PRIME) % _PRIME)
    return tuple(factors)


def _coefficient(seed: bytes, number: int) -> int:
    """Evenly from the field: 64 bytes leave a bias of 2^-255."""
    return int.from_bytes(hmac.digest(seed, b"coefficient %d" % number, hashlib.sha512), "big") % _PRIME


def _at(coefficients: Sequence[int], place: int) -> int:
    value = 0
    for coefficient in reversed(coefficients):
        value = value * place + coefficient  # places are small: one division at the end is less work
    return value % _PRIME
