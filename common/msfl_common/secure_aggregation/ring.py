"""Fixed-point numbers modulo a power of two: sums of them are exact, and the same in any order.

A number is a row of `limbs` unsigned 64-bit words, lowest first; a vector is an array of shape (limbs, length).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike, NDArray

from msfl_common.errors import UpdateError

Words = NDArray[np.uint64]
_WORD_BITS = 64
_ABOVE = np.uint64(32)
_CHUNK = 32768  # numbers at a time: they stay in the processor's cache


@dataclass(frozen=True)
class Ring:
    """Whole multiples of 2^-fraction_bits, modulo 2^(bits - fraction_bits).

    Attributes:
        bits: how many each number takes where it is sent.
        fraction_bits: how many of them lie behind the point.
    """

    bits: int
    fraction_bits: int

    @property
    def limbs(self) -> int:
        """Words of a number."""
        return -(-self.bits // _WORD_BITS)

    def bound(self, num_sites: int) -> float:
        """What no value of one of so many sites may reach, so that their sum cannot run over."""
        return float(2 ** (self.bits - 1 - self.fraction_bits) - 1) / num_sites

    def encode(self, values: ArrayLike, num_sites: int) -> Words:
        """The nearest numbers of the ring, halves to even.

        Args:
            values: finite numbers, of shape (length,).
            num_sites: how many sites at most are added up.

        Raises:
            UpdateError: a value is not finite, or so large that the sum could run over.
        """
        given = np.asarray(values, np.float64)
        if not np.isfinite(given).all():
            raise UpdateError("expected finite values")
        if given.size and float(np.abs(given).max()) >= self.bound(num_sites):
            raise UpdateError(f"expected values below {self.bound(num_sites):g}, found {np.abs(given).max():g}")
        if self.limbs == 1:
            whole: NDArray[np.int64] = np.rint(np.ldexp(given, self.fraction_bits)).astype(np.int64)
            words: Words = whole.view(np.uint64).reshape(1, -1)
            return words
        return self.of_whole([self.whole(value) for value in given.tolist()], num_sites)

    def whole(self, value: float) -> int:
        """The number of the ring nearest to a finite value, as a multiple of 2^-fraction_bits."""
        numerator, denominator = value.as_integer_ratio()
        return round(Fraction(numerator << self.fraction_bits, denominator))

    def of_whole(self, numbers: Sequence[int], num_sites: int) -> Words:
        """Multiples of 2^-fraction_bits, as `encode` makes them of values.

        Raises:
            UpdateError: one is so large that the sum could run over.
        """
        most = max(map(abs, numbers), default=0)
        if most >= (2 ** (self.bits - 1) - 2**self.fraction_bits) // num_sites:
            raise UpdateError(
                f"expected values below {self.bound(num_sites):g}, found {most / 2**self.fraction_bits:g}"
            )
        wide = b"".join(number.to_bytes(8 * self.limbs, "little", signed=True) for number in numbers)
        return np.ascontiguousarray(np.frombuffer(wide, "<u8").reshape(-1, self.limbs).T).astype(np.uint64)

    def decode(self, words: Words) -> NDArray[np.float64]:
        """The numbers as float64, each correctly rounded; what lies in the upper half of the ring is negative."""
        if self.limbs == 1:
            shift = np.uint64(_WORD_BITS - self.bits)
            signed = (words[0] << shift).view(np.int64) >> np.int64(_WORD_BITS - self.bits)
            values: NDArray[np.float64] = np.ldexp(signed.astype(np.float64), -self.fraction_bits)
            return values
        return np.array([number / 2**self.fraction_bits for number in self.to_whole(words)], np.float64)

    def to_whole(self, words: Words) -> list[int]:
        """The numbers as multiples of 2^-fraction_bits; of a ring that fills its words."""
        wide, size = np.ascontiguousarray(words.T).astype("<u8").tobytes(), 8 * self.limbs
        return [
            int.from_bytes(wide[start : start + size], "little", signed=True) for start in range(0, len(wide), size)
        ]

    def pack(self, words: Words) -> bytes:
        """The numbers as they are sent, `bits` each: all lowest 32 bits, then, of 48, all 16 above them."""
        if self.bits == 48:
            length = words.shape[1]
            packed = np.empty(6 * length, np.uint8)
            lowest, above = packed[: 4 * length].view("<u4"), packed[4 * length :].view("<u2")
            for part in _parts(length):
                np.copyto(lowest[part], words[0, part], casting="unsafe")  # the low bits: casts drop the rest
                np.copyto(above[part], words[0, part] >> _ABOVE, casting="unsafe")
            return packed.tobytes()
        return bytes(words.astype("<u8").tobytes())

    def unpack(self, data: bytes, length: int) -> Words:
        """The numbers in what was sent.

        Raises:
            UpdateError: it has not as many bytes as so many numbers take.
        """
        words = np.zeros((self.limbs, length), np.uint64)
        self.add_packed(words, data)
        return words

    def add_packed(self, total: Words, data: bytes) -> None:
        """Add what was sent to a vector, in place.

        Raises:
            UpdateError: it has not as many bytes as the vector's numbers take.
        """
        length = total.shape[1]
        if len(data) != length * self.bits // 8:
            raise UpdateError(f"expected {length * self.bits // 8} bytes for {length} numbers, found {len(data)}")
        if self.bits == 48:
            lowest, above = np.frombuffer(data, "<u4", length), np.frombuffer(data, "<u2", length, offset=4 * length)
            for part in _parts(length):
                total[0, part] += lowest[part]
                total[0, part] += above[part].astype(np.uint64) << _ABOVE
        else:
            add(total, np.frombuffer(data, "<u8").reshape(total.shape))


# Of model updates: 29 bits behind the point, 2^18 before it. Rounding then moves a weight of a site with 100 patients
# by at most 1e-11; a float32 near 1 is known to 6e-8.
UPDATES = Ring(bits=48, fraction_bits=29)
# Of sums in float64, which Newton's method solves: every number between 2^-76 and 2^127 is held to the bit.
SUMS = Ring(bits=256, fraction_bits=128)


def add(total: Words, more: Words) -> None:
    """Add to a vector, in place, modulo 2^64 for each limb that the ring has."""
    if len(total) == 1:
        total += more
        return
    carry = np.zeros(total.shape[1], np.uint64)
    for limb, other in zip(total, more, strict=True):
        limb += carry
        over = limb < carry
        limb += other
        carry = (over | (limb < other)).astype(np.uint64)


def negative(words: Words) -> Words:
    """The vector that comes to nothing with this one."""
    opposite = ~words
    one = np.zeros_like(words)
    one[0] = 1
    add(opposite, one)
    return opposite


def _parts(length: int) -> Iterator[slice]:
    return (slice(start, start + _CHUNK) for start in range(0, length, _CHUNK))
