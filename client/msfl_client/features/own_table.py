"""A site's own table of features: `features/features.tsv` in a BIDS folder, in place of images."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from msfl_client.data.bids import Case
from msfl_client.data.bids_tables import read_participants, visit_scanners
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


def cases_of_table(table: FeatureTable, site: SiteConfig) -> tuple[Case, ...]:
    """The cases of a table of features, in its order, without images.

    The scanner of a row that names none is that of sessions.tsv, else of participants.tsv, as for cases with images.

    Raises:
        InputError: a row is of a folder that the site does not have.
    """
    roots = site.data
    of_patient = [read_participants(root).scanners for root in roots]
    of_visit = lru_cache(maxsize=None)(visit_scanners)
    cases = []
    for row in table.rows:
        if row.dataset >= len(roots):
            text = f"dataset {row.dataset} of the table of features: the site has {len(roots)} folders, counted from 0"
            raise InputError(text)
        named = of_visit(roots[row.dataset] / row.participant_id).get(row.session_id or "")
        scanner = row.scanner or named or of_patient[row.dataset].get(row.participant_id)
        cases.append(Case(row.dataset, row.participant_id, row.session_id, {}, None, scanner, site.one_person))
    return tuple(cases)
