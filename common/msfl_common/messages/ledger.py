"""A ledger's head in a site's answer, and its receipt in the coordinator's next request.

Both lie in records of their own beside the message, and are taken out before the message is read: they change neither
its digest, by which an answer is kept and a line is checked, nor what training sees.
"""

from __future__ import annotations

from typing import TypeVar

from flwr.app import ConfigRecord, RecordDict
from pydantic import BaseModel, ValidationError

from msfl_common.trust.receipts import Receipt, SignedHead

HEAD, RECEIPT = "ledger_head", "ledger_receipt"
Beside = TypeVar("Beside", bound=BaseModel)
BESIDE = (HEAD, RECEIPT)  # the records that are no part of a message


def add_head(content: RecordDict, head: SignedHead) -> None:
    """Put a head beside an answer: number, hash and signature, and nothing else."""
    content[HEAD] = ConfigRecord({**head.model_dump()})


def take_head(content: RecordDict) -> SignedHead | None:
    """Take the head out of an answer; None where there is none, or what is there is none."""
    return _take(content, HEAD, SignedHead)


def with_receipt(content: RecordDict, receipt: Receipt) -> RecordDict:
    """A request with a site's receipt beside it; the request's own records are shared, not copied."""
    return RecordDict({**content, RECEIPT: ConfigRecord({**receipt.model_dump()})})


def take_receipt(content: RecordDict) -> Receipt | None:
    """Take the receipt out of a request; None where there is none, or what is there is none."""
    return _take(content, RECEIPT, Receipt)


def _take(content: RecordDict, name: str, model: type[Beside]) -> Beside | None:
    record = content.pop(name, None)
    if not isinstance(record, ConfigRecord):
        return None
    try:
        return model.model_validate(dict(record), strict=True)
    except ValidationError:
        return None
