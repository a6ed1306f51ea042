"""Hospitals' own halves of secure aggregation, for tests: real keys, state folders and registers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from msfl_client.secure_aggregation.rosters import Rosters
from msfl_client.secure_aggregation.site_masks import SiteMasks, site_masks
from msfl_client.site.keys import load_key, make_key
from msfl_common.config.secure_aggregation import SecureAggregation
from msfl_common.config.site import Policy, SiteConfig
from msfl_common.config.study import StudyConfig
from msfl_common.secure_aggregation.context import Context
from msfl_common.secure_aggregation.coordinator import MaskedSum
from msfl_common.secure_aggregation.ring import SUMS
from msfl_common.secure_aggregation.roster import Entry, Roster, make_roster
from msfl_common.secure_aggregation.site import Hidden, Opening

NAMES = ("bern", "graz", "oslo")
LENGTH = 7
REQUEST = "ab" * 32


def masked(study: StudyConfig, **settings: object) -> StudyConfig:
    """A study whose sums are masked."""
    return study.model_copy(update={"secure_aggregation": SecureAggregation(method="masks", **settings)})  # type: ignore[arg-type]


STUDY = masked(StudyConfig(name="pilot"))


@cache
def key_file(name: str) -> bytes:
    """A site's registered key; making one takes time."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        make_key(Path(folder, "key"), name)
        return Path(folder, "key").read_bytes()


def site_at(root: Path, name: str, policy: Policy | None = None) -> SiteConfig:
    """A site with its key, in a folder of its own."""
    folder = root / name
    folder.mkdir(exist_ok=True)
    key = folder / "site.key"
    if not key.exists():
        key.write_bytes(key_file(name))
        key.chmod(0o600)
    return SiteConfig(
        name=name, data=(folder,), state=folder / "state", key=key, kit=folder / "kit", policy=policy or Policy()
    )


def masks_at(root: Path, name: str, policy: Policy | None = None, study: StudyConfig = STUDY) -> SiteMasks:
    """A site's part in the study's sums."""
    site = site_at(root, name, policy)
    return site_masks(site, study, load_key(site.key), is_simulated=False)


@dataclass(frozen=True)
class Members:
    """Three sites that have taken, and confirmed, a roster."""

    root: Path
    sites: dict[str, SiteMasks]
    roster: Roster

    def __getitem__(self, name: str) -> SiteMasks:
        return self.sites[name]

    def context(self, request: str = REQUEST, attempt: int = 0, asked: tuple[str, ...] = NAMES) -> Context:
        """One attempt at a sum."""
        return Context(roster=self.roster.digest, request=request, asked=asked, attempt=attempt)

    def hidden(self, name: str, context: Context, seed: int = 0) -> Hidden:
        """A site's value, written down as sent."""
        masks = self.sites[name]
        keys = masks.expect(context, context.request)
        value = SUMS.encode(np.random.default_rng(seed).normal(size=LENGTH), len(self.roster.sites))
        hidden = keys.hide(context, SUMS, value)
        masks.registers.sends(masks.registers.read(), context.digest.hex(), hidden.head.payload)
        return hidden

    def summed(self, context: Context, members: tuple[str, ...] = NAMES) -> MaskedSum:
        """The coordinator's sum of these sites' values."""
        total = MaskedSum(self.roster, context, SUMS, LENGTH)
        for name in members:
            total.take(name, self.hidden(name, context))
        return total

    def opening(self, name: str, context: Context, members: tuple[str, ...] = NAMES) -> Opening:
        """What the coordinator asks of a site."""
        return self.summed(context, members).opening(name)


def roster_of(entries: list[Entry], study: StudyConfig = STUDY, **changes: int) -> Roster:
    """The coordinator's roster of these."""
    settings = study.secure_aggregation
    counts = {"threshold": settings.threshold_of(len(entries)), "min_sites": settings.min_sites} | changes
    return make_roster(study.name, entries, **counts)


def confirm(masks: SiteMasks, roster: Roster) -> None:
    """What a person at the site does."""
    Rosters(masks.folder).confirm(roster.digest)


def members_at(root: Path, study: StudyConfig = STUDY) -> Members:
    """Three sites, all ready, whose policies allow the study's sums."""
    policy = Policy(min_sites_in_sum=study.secure_aggregation.min_sites)
    sites = {name: masks_at(root, name, policy, study) for name in NAMES}
    roster = roster_of([masks.entry() for masks in sites.values()], study)
    for masks in sites.values():
        masks.take(roster)
        confirm(masks, roster)
    return Members(root, sites, roster)
