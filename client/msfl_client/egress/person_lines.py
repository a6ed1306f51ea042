"""Lines of the ledger for what a person at the site did, beside what left."""

from __future__ import annotations

import hashlib

from msfl_client.egress import ledger
from msfl_client.egress.gateway import gateway_of
from msfl_client.egress.ledger_line import Entry, InSum
from msfl_client.egress.ledger_sums import ROSTER_CONFIRMED
from msfl_common import __version__
from msfl_common.config.site import SiteConfig
from msfl_common.errors import InputError, RefusedError
from msfl_common.secure_aggregation.roster import Roster


def write_line(site: SiteConfig, kind: str, study: str, in_sum: InSum | None = None) -> None:
    """Write a line down before what it says is done.

    Raises:
        InputError: the ledger was touched, or the key that signs its lines cannot be used.
    """
    gateway = gateway_of(site)
    entry = Entry(
        kind=kind,
        study=study,
        round=0,
        arrays={},
        numbers=[],
        num_bytes=0,
        sha256=hashlib.sha256().hexdigest(),
        num_cases=0,
        version=__version__,
        in_sum=in_sum,
    )
    try:
        ledger.append(gateway.ledger, entry, gateway.signer)
    except RefusedError as error:
        raise InputError(error.why) from None


def write_confirmed(site: SiteConfig, roster: Roster) -> None:
    """A person has confirmed a roster.

    Raises:
        InputError: see `write_line`.
    """
    least = max(roster.min_sites, roster.threshold)
    write_line(site, ROSTER_CONFIRMED, roster.study, InSum(roster=roster.digest, sites=roster.names, least=least))
