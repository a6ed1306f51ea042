"""Two image contrasts: susceptibility-weighted images, and T1w after gadolinium; docs/how-to/add-a-contrast.md."""

from __future__ import annotations

import re

from msfl_common.config.contrasts import ContrastFacts, SeriesRule

# --8<-- [start:table]
# common/msfl_common/config/contrasts.py: an entry in CONTRASTS
_SWI = re.compile(r"\bswi\b|swan|venobold")

CONTRASTS = {
    "SWI": ContrastFacts(
        "susceptibility-weighted",
        "swi",
        series=SeriesRule(lambda name: _SWI.search(name) is not None, is_special=True),
        anchor_rank=5,
    ),
    "ce-gadolinium_T1w": ContrastFacts("T1-weighted after gadolinium", "T1w", {"ce": "gadolinium"}),
}
# --8<-- [end:table]
