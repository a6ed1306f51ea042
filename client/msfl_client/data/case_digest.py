"""SHA-256 of the cases that a site computes its answers from; it stays at the site.

Two answers computed from nearly the same cases differ by what the patients who were added or removed contribute. So
a site's cases may not change between its first answer to a study and its last (`answers.of_same_cases`).

Images count by the sizes of their files: a folder that is copied or touched is the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence

from msfl_client.data.bids import Case
from msfl_client.trainer import About


def digest_of_images(*parts: Sequence[Case]) -> str:
    """SHA-256 of the cases of a segmentation; the parts are training, validation and, where there is one, test."""
    return sha256_of_json([sorted(image_sizes(case) for case in part) for part in parts])


def image_sizes(case: Case) -> list[object]:
    """A case's name, and the sizes of its files, bytes."""
    files = {**case.images} | ({} if case.mask is None else {"mask": case.mask})
    return [case.key, sorted([str(name), file.stat().st_size] for name, file in files.items())]


def about_images(cases: Iterable[Case], digests: Mapping[str, Mapping[str, str]]) -> About:
    """Each image of some cases by its voxels: what tells whose it is, whatever folders and files are called.

    Args:
        cases: whose images.
        digests: key of a case to contrast to `CaseFacts.digests`; a case that is not in it has no images.
    """
    found = [(case, contrast, of) for case in cases for contrast, of in sorted(digests.get(case.key, {}).items())]
    return About(
        "sums",
        tuple(f"{case.key} {contrast}" for case, contrast, _ in found),
        tuple(case.patient for case, _, _ in found),
        (0,) * len(found),
        ("image",),
        tuple((of,) for _, _, of in found),
    )


def sha256_of_json(said: object) -> str:
    """SHA-256 of what is said, as JSON."""
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()
