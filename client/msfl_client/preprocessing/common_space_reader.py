"""A site's case in the common space, from wherever it is nearest."""

from __future__ import annotations

from collections.abc import Sequence

from msfl_client.data.bids import Case
from msfl_client.data.derivative import read_derived
from msfl_client.imaging.common_space import CommonSpaceCase
from msfl_common.config.study import Inputs


def common_space_of(case: Case, inputs: Inputs, visits: Sequence[Case] = ()) -> CommonSpaceCase:
    """Read a preprocessed case from its derivative; bring any other into the common space here and now.

    Skull-stripped images on the template are read in about a second, others are registered in about ten.

    Args:
        case: the case.
        inputs: contrasts and spacing.
        visits: the patient's visits, which are all treated alike.

    Raises:
        CaseError: an image cannot be read, or no brain was found where the template has its own.
        OSError: a file cannot be opened.
    """
    derived = read_derived(case)
    if derived is not None:
        return derived
    from msfl_client.preprocessing.pipeline import preprocess_case, recognise_case  # loads SimpleITK

    return preprocess_case(case, inputs, recognise_case(case, inputs, visits)).case
