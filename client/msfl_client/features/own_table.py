"""A site's own table of features: `features/features.tsv` in a BIDS folder, in place of images."""

from __future__ import annotations

from dataclasses import replace

from msfl_client.data.bids_tables import with_prefix
from msfl_client.features.cache import TABLE
from msfl_client.features.table import FeatureRow, FeatureTable, read_features_table
from msfl_common.config.site import SiteConfig
from msfl_common.errors import InputError


def own_features(site: SiteConfig) -> FeatureTable | None:
    """The tables that a site has put into its BIDS folders, in one; None where no folder has one.

    Raises:
        InputError: a table cannot be read, or two of them are not harmonized to the same reference.
    """
    tables = [(dataset, root / TABLE) for dataset, root in enumerate(site.data) if (root / TABLE).exists()]
    read = [(dataset, read_features_table(path)) for dataset, path in tables]
    if len({table.harmonized_to for _, table in read}) > 1:
        raise InputError(f"{tables[0][1]}: harmonized to another reference than the site's other tables; give raw ones")
    rows = [_as_bids(row, dataset) for dataset, table in read for row in table.rows]
    return FeatureTable(tuple(rows), read[0][1].harmonized_to) if read else None


def _as_bids(row: FeatureRow, dataset: int) -> FeatureRow:
    """Labels as every other table has them: sub-001 and ses-01, where the table may say 001 and 01."""
    visit = None if row.session_id is None else with_prefix("ses-", row.session_id)
    return replace(row, participant_id=with_prefix("sub-", row.participant_id), session_id=visit, dataset=dataset)
