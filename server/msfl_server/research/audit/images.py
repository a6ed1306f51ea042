"""The simulated images of an audit: the patches that a site's network learns from, and others that it never sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from msfl_client.classification.trainer import split_segmentation
from msfl_client.segmentation.draws import seed_of
from msfl_client.segmentation.patches import PatchDataset
from msfl_client.segmentation.usable_cases import usable_cases
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import StudyConfig
from msfl_common.errors import CohortError, InputError


@dataclass(frozen=True)
class ImageSite:
    """A site.

    Attributes:
        learned: patches of the patients whom the study learns from, as the site draws them.
        others: patches of patients whom it does not.
        num_cases: that it learns from.
        num_patients: of both.
    """

    learned: PatchDataset
    others: PatchDataset
    num_cases: int
    num_patients: int


def read_images(study: StudyConfig, sites: Sequence[SiteConfig]) -> dict[str, ImageSite]:
    """The sites of a cohort.

    Raises:
        InputError: a site has no images that the study can learn from, and others beside.
    """
    found = {}
    for site in sites:
        try:
            cases, prepared, _ = usable_cases(site, study, lambda *_: None)
        except CohortError as error:
            raise InputError(f"{site.name}: {error}") from None
        split = split_segmentation(site, study, cases)
        if not (split.training and split.validation):
            raise InputError(f"{site.name}: no patients to learn from and others beside; audit a larger cohort")
        learned, others = (
            PatchDataset(
                [prepared[case.key] for case in part],
                study.training,
                seed_of(study, site.name),
                study.inputs.num_regions,
            )
            for part in (split.training, split.validation)
        )
        found[site.name] = ImageSite(learned, others, len(split.training), len({case.patient for case in cases}))
    return found
