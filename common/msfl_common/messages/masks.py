"""The messages of secure aggregation: which sum a request is for, a value under its masks, a request to open a sum.

A request for a value is the plain one with the context of its sum beside it. All sizes are held against what the
roster and the context say before anything is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from flwr.app import ConfigRecord, RecordDict
from pydantic import ValidationError

from msfl_common.config.message_kinds import ROSTER
from msfl_common.errors import ConfigError, UpdateError
from msfl_common.messages.arrays import ARRAYS, pack_bytes, unpack_bytes
from msfl_common.messages.records import TASK, RoundTask, pack_task
from msfl_common.secure_aggregation.context import Context
from msfl_common.secure_aggregation.roster import Entry, Roster
from msfl_common.secure_aggregation.shamir import SHARE_BYTES
from msfl_common.secure_aggregation.site import Head, Hidden, Opening, Shares
from msfl_common.system.reading import MOST_SETTINGS, parse_record

Read = TypeVar("Read", Context, Roster)

CONTEXT, MASKED, OPENING, SHARES, MASK_KEY = "sum", "masked", "opening", "shares", "mask_key"

_DIGEST_BYTES = 32
_BOX_TAG_BYTES = 16


def with_context(content: RecordDict, context: Context) -> RecordDict:
    """A request with the sum that its answer is for beside it; the request's own records are shared, not copied."""
    return RecordDict({**content, CONTEXT: ConfigRecord({CONTEXT: context.model_dump_json()})})


def context_of(content: RecordDict) -> Context | None:
    """The sum that a request is for; None of a plain one.

    Raises:
        UpdateError: there is one, but it does not validate.
    """
    record = content.config_records.get(CONTEXT)
    return None if record is None else _parsed(Context, record.get(CONTEXT), "which sum is meant")


def pack_mask_key(entry: Entry) -> RecordDict:
    """A site's public key for masks, signed."""
    return RecordDict({MASK_KEY: ConfigRecord({**entry.model_dump()})})


def unpack_mask_key(content: RecordDict) -> Entry:
    """Read a site's public key for masks; whether it is signed is checked where it is put into a roster.

    Raises:
        UpdateError: it is not as declared.
    """
    record = _only(content, MASK_KEY)
    try:
        return Entry.model_validate(dict(record), strict=True)
    except ValidationError:
        raise UpdateError("expected a key for masks") from None


def pack_roster_task(task: RoundTask, roster: Roster) -> RecordDict:
    """The coordinator hands out the roster; a site answers with its facts."""
    content = pack_task(task)
    content.config_records[TASK][ROSTER] = roster.model_dump_json()
    return content


def unpack_roster(content: RecordDict) -> Roster:
    """The roster in a request.

    Raises:
        UpdateError: there is none, or it does not hold: a key twice, one not signed, a threshold that cannot hold.
    """
    return _parsed(Roster, content.config_records[TASK].get(ROSTER), "the roster")


def pack_hidden(hidden: Hidden) -> RecordDict:
    """A value under its masks."""
    head = hidden.head
    record = ConfigRecord(
        {
            "site": head.site,
            "payload": head.payload,
            "commitments_sha256": head.commitments,
            "signature": head.signature,
            "commitments": b"".join(hidden.commitments),
            "boxes": b"".join(hidden.boxes[site] for site in sorted(hidden.boxes)),
        }
    )
    return RecordDict({ARRAYS: pack_bytes(hidden.payload), MASKED: record})


def unpack_hidden(content: RecordDict, site: str, context: Context, num_bytes: int) -> Hidden:
    """Read a value under its masks; whether it is signed is checked where it is added up.

    Args:
        content: the message; its blocks are dropped as they are read.
        site: whose it is.
        context: the sum that it is for.
        num_bytes: what the value takes.

    Raises:
        UpdateError: it is not as declared.
    """
    record = content.config_records.get(MASKED)
    if record is None or set(content) != {ARRAYS, MASKED}:
        raise UpdateError("expected a value under masks")
    if set(record) != {"site", "payload", "commitments_sha256", "signature", "commitments", "boxes"}:
        raise UpdateError("expected a value under masks, with its commitments and boxes")
    texts = [_text(record, name) for name in ("site", "payload", "commitments_sha256", "signature")]
    others = [name for name in context.asked if name != site]
    commitments = _pieces(record, "commitments", [_DIGEST_BYTES] * len(context.asked))
    boxes = _pieces(record, "boxes", [SHARE_BYTES * len(context.asked) + _BOX_TAG_BYTES] * len(others))
    payload = unpack_bytes(content, num_bytes)
    return Hidden(Head(*texts), payload, tuple(commitments), dict(zip(others, boxes, strict=True)))


def pack_opening_task(task: RoundTask, opening: Opening) -> RecordDict:
    """The coordinator asks a site for its shares, so that a sum is opened."""
    record = ConfigRecord(
        {
            CONTEXT: opening.context.model_dump_json(),
            "members": [head.site for head in opening.heads],
            "payloads": [head.payload for head in opening.heads],
            "commitments": [head.commitments for head in opening.heads],
            "signatures": [head.signature for head in opening.heads],
            "boxes": [opening.boxes.get(head.site, b"") for head in opening.heads],
        }
    )
    return RecordDict({**pack_task(task), OPENING: record})


def unpack_opening(content: RecordDict) -> Opening:
    """The opening in a request; whether this site may answer it is for `expect_opening` to say.

    Raises:
        UpdateError: there is none, or it is not as declared.
    """
    record = content.config_records.get(OPENING)
    if record is None:
        raise UpdateError("expected a request to open a sum")
    context = _parsed(Context, record.get(CONTEXT), "which sum is meant")
    most = len(context.asked)
    columns = [_list(record, name, str, most) for name in ("members", "payloads", "commitments", "signatures")]
    boxes = _list(record, "boxes", bytes, most)
    if len({len(column) for column in (*columns, boxes)}) != 1:
        raise UpdateError("expected a head and a box for each value in a sum")
    heads = tuple(Head(*row) for row in zip(*columns, strict=True))
    sealed = {head.site: box for head, box in zip(heads, boxes, strict=True) if box}
    return Opening(context, heads, sealed)


def pack_shares(shares: Shares) -> RecordDict:
    """A site's shares, in the order of the members, and of the lost sites for each."""
    record = ConfigRecord(
        {
            "own": b"".join(shares.own[member] for member in sorted(shares.own)),
            "pairs": b"".join(shares.pairs[pair] for pair in sorted(shares.pairs)),
            "damaged": list(shares.damaged),
        }
    )
    return RecordDict({SHARES: record})


def unpack_shares(content: RecordDict, opening: Opening) -> Shares:
    """Read a site's shares for an opening; whether they are right is checked where the sum is opened.

    Raises:
        UpdateError: they are not as declared.
    """
    record = _only(content, SHARES)
    if set(record) != {"own", "pairs", "damaged"}:
        raise UpdateError("expected shares")
    damaged = _list(record, "damaged", str, len(opening.members))
    if not set(damaged) <= set(opening.members):
        raise UpdateError("damaged: expected names of sites in the sum")
    given = [member for member in sorted(opening.members) if member not in damaged]
    pairs = sorted((member, lost) for member in given for lost in opening.lost)
    own_shares = _pieces(record, "own", [SHARE_BYTES] * len(given))
    pair_shares = _pieces(record, "pairs", [SHARE_BYTES] * len(pairs))
    return Shares(
        dict(zip(given, own_shares, strict=True)),
        dict(zip(pairs, pair_shares, strict=True)),
        tuple(damaged),
    )


def _parsed(model: type[Read], text: object, what: str) -> Read:
    try:
        return parse_record(model, str(text), what, MOST_SETTINGS)
    except ConfigError as error:
        raise UpdateError(str(error)) from None


def _only(content: RecordDict, name: str) -> Mapping[str, Any]:
    record = content.config_records.get(name)
    if record is None or set(content) != {name}:
        raise UpdateError(f"expected the record {name} alone")
    return record


def _text(record: Mapping[str, Any], name: str) -> str:
    value = record[name]
    if not isinstance(value, str) or len(value) > 400:
        raise UpdateError(f"{name}: expected a short text")
    return value


def _pieces(record: Mapping[str, Any], name: str, sizes: Sequence[int]) -> list[bytes]:
    value = record[name]
    if not isinstance(value, bytes) or len(value) != sum(sizes):
        raise UpdateError(f"{name}: expected {sum(sizes)} bytes")
    ends = np.cumsum(sizes, dtype=int)
    return [value[end - size : end] for end, size in zip(ends.tolist(), sizes, strict=True)]


def _list(record: Mapping[str, Any], name: str, kind: type, most: int) -> list[Any]:
    value = record.get(name)
    if not isinstance(value, list) or len(value) > most or not all(isinstance(one, kind) for one in value):
        raise UpdateError(f"{name}: expected a list of at most {most}")
    return value
