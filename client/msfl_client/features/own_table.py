"""A site's own table of features: `features/features.tsv` in a BIDS folder, in place of images."""

from __future__ import annotations

from dataclasses import replace

from msfl_client.features.cache import TABLE
from msfl_client.features.table import FeatureTable, read_features_table
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
    rows = [replace(row, dataset=dataset) for dataset, table in read for row in table.rows]
    return FeatureTable(tuple(rows), read[0][1].harmonized_to) if read else None
