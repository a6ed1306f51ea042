"""A digest in words that are easy to read out over the telephone, and back.

24 words for 32 bytes, the last one with 8 bits of check, after BIP-39, with its list of English words of which no two
begin with the same four letters (https://github.com/bitcoin/bips/blob/master/bip-0039.mediawiki).
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from importlib import resources

from msfl_common.errors import InputError

NUM_WORDS = 24
WORDS_FILE = "words.txt"
_WORD_BITS, _CHECK_BITS = 11, 8
_TELLING = 4  # letters that tell a word


def words_of(digest: str) -> list[str]:
    """The words of a digest of 64 hexadecimal digits."""
    raw = bytes.fromhex(digest)
    number = int.from_bytes(raw + hashlib.sha256(raw).digest()[:1], "big")
    return [_words()[number >> _WORD_BITS * place & (1 << _WORD_BITS) - 1] for place in range(NUM_WORDS - 1, -1, -1)]


def digest_of(said: str) -> str:
    """The digest that a person gives: its 64 hexadecimal digits, or its words; of a word, four letters will do.

    Raises:
        InputError: it is neither, or a word was misheard.
    """
    digits = re.sub(r"[\s:]", "", said).lower()
    if re.fullmatch("[0-9a-f]{64}", digits):
        return digits
    if re.fullmatch("[0-9a-f]+", digits) and re.search("[0-9]", digits):
        raise InputError(
            f"expected the 64 hexadecimal digits of a digest, or its {NUM_WORDS} words; found {len(digits)} digits"
        )
    parts = re.findall(r"[^\W\d_]+", said.lower())
    if len(parts) != NUM_WORDS:
        raise InputError(
            f"expected the {NUM_WORDS} words of a digest, or its 64 hexadecimal digits; found {len(parts)} words"
        )
    number = 0
    for place, part in enumerate(parts, start=1):
        found = _places().get(part[:_TELLING])
        if found is None or not _words()[found].startswith(part):
            raise InputError(f"word {place}, {part}: is not on the list of words; have it read out again")
        number = number << _WORD_BITS | found
    raw = (number >> _CHECK_BITS).to_bytes(32, "big")
    if hashlib.sha256(raw).digest()[0] != number & (1 << _CHECK_BITS) - 1:
        raise InputError("the words do not fit together: one was misheard; have them read out again")
    return raw.hex()


@cache
def _words() -> tuple[str, ...]:
    return tuple((resources.files(__package__) / WORDS_FILE).read_text(encoding="ascii").split())


@cache
def _places() -> dict[str, int]:
    return {word[:_TELLING]: place for place, word in enumerate(_words())}
