"""The part of `study.yaml` that asks sites for models of their own, to hold the shared one against."""

from __future__ import annotations

from typing import Any, Final

from pydantic import Field

from msfl_common.config.base import Frozen

SHARED, LOCAL = "shared", "local-only"  # what models are called that are compared

# On the study's grid, and defined in the same cases whatever a model finds: held against the validation of the same
# model, one that is not would tell of the case in which it is undefined.
BASELINE_METRICS: Final = ("dsc", "tpr", "lesion_f1")


class Baselines(Frozen):
    """What sites measure beside the shared model, where their policies allow it."""

    local: bool = Field(
        False,
        description="after the last round each site trains a model on its own patients alone, from the same first "
        "weights and with the same steps, and tells its figures and how the shared model differs in the same cases; "
        "of lesions so far. With `evaluate` nothing is trained: a site tells those of its `own_model`, if it has one",
    )


def check_baselines(baselines: Baselines, study: Any) -> None:
    """Refuse a study that asks sites for models which they cannot make, or figures which it could not see.

    Raises:
        ValueError: says which setting is in the way.
    """
    if not baselines.local:
        return
    for is_so, why in (
        (
            study.classification is not None,
            "sites train models of lesions alone so far, and this study is of an outcome",
        ),
        (study.left_out is not None, "the site that is left out trains nothing, and the others have nobody to test on"),
        (study.task == "new-lesions", "figures of new lesions are not compared so far"),
        (study.differential_privacy is not None, "a site's own model has no noise of `differential_privacy`"),
        (study.secure_aggregation.method == "masks", "each site's own figures are seen, which masks hide"),
    ):
        if is_so:
            raise ValueError(f"baselines.local: {why}; leave it out")
