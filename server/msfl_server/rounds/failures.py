"""Why a site did not contribute: the codes that people read in summaries, and the sentence behind each."""

from __future__ import annotations

from msfl_common.errors import FORMER_CODES, SENTENCES, Code
from msfl_server.results.summary import SUSPENDED

UNCONFIRMED, NO_KEY = Code.ROSTER_UNCONFIRMED.value, Code.NO_MASK_KEY.value
STRANGER = "node-"  # what a node is called before it has told its site's name
UNREADABLE = 7001  # the code of an error that a grid makes of bytes that are no reply; none of Flower's own
TOO_LARGE = 413  # the error code of a reply that the SuperLink cut off
NO_ANSWER, WENT_OFFLINE, NOT_ONLINE, REMOVED = "NO_ANSWER", "WENT_OFFLINE", "NOT_ONLINE", "REMOVED"
BAD_UPDATE, BAD_METRICS, BAD_FACTS, BAD_SUMS, BAD_REPLY, BAD_KEY, BAD_SHARES = (
    "BAD_UPDATE",
    "BAD_METRICS",
    "BAD_FACTS",
    "BAD_SUMS",
    "BAD_REPLY",
    "BAD_KEY",
    "BAD_SHARES",
)
MEANINGS = {
    NO_ANSWER: "no answer before the deadline",
    WENT_OFFLINE: "went offline and did not come back in time",
    NOT_ONLINE: "was not online when the round began",
    REMOVED: "its authority was taken away",
    BAD_UPDATE: "its update was refused: names, shapes, size or values are wrong; the coordinator's log says which",
    BAD_METRICS: "its metrics were refused: names or values are wrong; the coordinator's log says which",
    "TOO_LARGE": "it sent more than its answer can be, and was cut off",
    BAD_FACTS: "its facts were refused; the coordinator's log says why",
    BAD_SUMS: "its sums were refused: names, shapes or values are wrong; the coordinator's log says which",
    BAD_KEY: "its key for masks was refused: it is not signed by the key that the site was authorised with",
    BAD_SHARES: "its shares, which open a sum, were not those that it had been given",
    BAD_REPLY: "its reply was none that can be read",
    SUSPENDED: "not asked for some rounds, as its last answers were refused",
    "DUPLICATE_NAME": "another process already has this site name: one for each site",
    "WRONG_NAME": "it gave another name than its key was authorised for",
    **{code.value: sentence for code, sentence in SENTENCES.items()},
    **{former: SENTENCES[code] for former, code in FORMER_CODES.items()},
}


def meaning_of(code: str) -> str:
    """The fixed sentence behind a failure code."""
    return MEANINGS.get(code, "unknown code")
