"""Messages of secure aggregation that are none: refused as such, whatever is in them."""

from __future__ import annotations

import pytest
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from msfl_common.errors import UpdateError
from msfl_common.messages.arrays import ARRAYS
from msfl_common.messages.masks import MASK_KEY, MASKED, SHARES, unpack_hidden, unpack_mask_key, unpack_shares
from msfl_common.secure_aggregation.context import Context
from msfl_common.secure_aggregation.site import Opening

CONTEXT = Context(roster="0" * 64, request="1" * 64, asked=("bern", "graz", "oslo"))
NUMBERS = MetricRecord({"site": 1})


@pytest.mark.parametrize("record", [NUMBERS, ConfigRecord({}), ConfigRecord({"site": "bern"})], ids=str)
def test_a_record_of_another_kind_or_content_is_no_message(record: MetricRecord | ConfigRecord) -> None:
    with pytest.raises(UpdateError, match="expected"):
        unpack_hidden(RecordDict({ARRAYS: ArrayRecord({}), MASKED: record}), "bern", CONTEXT, 8)
    with pytest.raises(UpdateError, match="expected"):
        unpack_mask_key(RecordDict({MASK_KEY: record}))
    with pytest.raises(UpdateError, match="expected"):
        unpack_shares(RecordDict({SHARES: record}), Opening(CONTEXT, (), {}))
