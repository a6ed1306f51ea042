"""SHA-256 of the cases that a site computes its answers from; it stays at the site.

Two answers computed from nearly the same cases differ by what the patients who were added or removed contribute. So
a site's cases may not change between its first answer to a study and its last (`answers.of_same_cases`).

Images count by the sizes of their files: a folder that is copied or touched is the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from msfl_client.data.bids import Case


def digest_of_images(*parts: Sequence[Case]) -> str:
    """SHA-256 of the cases of a segmentation; the parts are training, validation and, where there is one, test."""
    return sha256_of_json([sorted(image_sizes(case) for case in part) for part in parts])


def image_sizes(case: Case) -> list[object]:
    """A case's name, and the sizes of its files, bytes."""
    files = {**case.images} | ({} if case.mask is None else {"mask": case.mask})
    return [case.key, sorted([str(name), file.stat().st_size] for name, file in files.items())]


def sha256_of_json(said: object) -> str:
    """SHA-256 of what is said, as JSON."""
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()
