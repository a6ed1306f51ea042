"""Digests in words: held against the published examples, and against what a person mishears."""

from __future__ import annotations

import hashlib
import random
from importlib import resources

import pytest

from msfl_common.errors import InputError
from msfl_common.secure_aggregation.spoken import WORDS_FILE, digest_of, words_of

# https://github.com/trezor/python-mnemonic/blob/master/vectors.json
PUBLISHED = {
    "00" * 32: "abandon " * 23 + "art",
    "7f" * 32: "legal winner thank year wave sausage worth useful legal winner thank year wave sausage worth useful "
    "legal winner thank year wave sausage worth title",
    "ff" * 32: "zoo " * 23 + "vote",
}


def test_the_list_is_the_published_one() -> None:
    content = (resources.files("msfl_common.secure_aggregation") / WORDS_FILE).read_bytes()
    assert hashlib.sha256(content).hexdigest() == "2f5eed53a4727b4bf8880d8f3f199efc90e58503646d9ff8eff3a2ed3b24dbda"


@pytest.mark.parametrize("digest", PUBLISHED)
def test_published_examples(digest: str) -> None:
    assert " ".join(words_of(digest)) == PUBLISHED[digest].strip()
    assert digest_of(PUBLISHED[digest]) == digest


def test_every_way_to_give_a_digest() -> None:
    digest = random.Random(0).randbytes(32).hex()
    words = words_of(digest)
    pairs = " ".join(digest[start : start + 8] for start in range(0, 64, 8))
    for said in (digest, digest.upper(), pairs, ", ".join(words).upper(), "\n".join(word[:4] for word in words)):
        assert digest_of(said) == digest


def test_what_is_misheard_is_noticed() -> None:
    words = words_of(random.Random(1).randbytes(32).hex())
    for wrong, said in (
        ([*words[:5], "clinics", *words[6:]], "word 6, clinics"),
        (words[:-1], "found 23 words"),
        ([*words[:3], words[4], words[3], *words[5:]], "misheard"),
    ):
        with pytest.raises(InputError, match=said):
            digest_of(" ".join(wrong))
    with pytest.raises(InputError, match="found 62 digits"):
        digest_of("a1 " * 31)
