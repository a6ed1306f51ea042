"""Sums of a harmonization that no cases give, or that are of something else than the other sites'.

Legend: Q columns of the covariates, P features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from msfl_common.config.study import Harmonization
from msfl_common.errors import RunError, UpdateError
from msfl_common.harmonization import Floats, Moments, Residuals, column_widths, solve_slopes
from msfl_common.messages.layouts import moments_layout, residuals_layout, sum_of
from msfl_server.aggregation.odd_sites import odd_means


def check_moments(sums: Moments, settings: Harmonization) -> Moments:
    """Refuse variances that no covariates have, and more scanners than the cases are enough for.

    A site leaves small groups out of the sums of a scanner that has enough cases to be fitted.

    Raises:
        UpdateError: the first of them.
    """
    if sums.num_scanners * 2 > sums.num_cases:
        raise UpdateError(f"{sums.num_scanners} scanners need 2 cases each, found {sums.num_cases} cases")
    widths = column_widths(settings)
    variance_Q, width_Q = np.diag(sums.covariance_QQ), np.array([*widths.values()])
    if (beyond_Q := variance_Q > (1 + 1e-6) * sums.num_cases * width_Q**2 / 4).any():
        name = [*widths][int(beyond_Q.argmax())]
        raise UpdateError(f"covariance: {name}: expected no more than values within {widths[name]:g} can vary")
    return sums


def odd_moments(told: Mapping[int, Moments]) -> dict[int, int]:
    """The nodes whose features vary with the covariates as those of no other site."""
    sizes = {node: _sizes(sums) for node, sums in told.items()}
    return odd_means({node: np.zeros_like(size_P) for node, size_P in sizes.items()}, sizes)


def odd_residuals(told: Mapping[int, Residuals]) -> dict[int, int]:
    """The nodes whose features are elsewhere, or vary otherwise, than those of any other site."""
    return odd_means(
        {node: sums.intercepts_P / sums.num_cases for node, sums in told.items()},
        {node: np.sqrt(sums.squares_P / sums.num_cases) for node, sums in told.items()},
    )


def all_moments(sites: Sequence[Moments], settings: Harmonization) -> Moments:
    """What the first sums of sites come to, the same as under masks.

    Raises:
        UpdateError: they are beyond what can be added up.
    """
    layout = moments_layout(settings)
    return layout.decode(sum_of(layout, sites, len(sites)))


def all_residuals(sites: Sequence[Residuals], settings: Harmonization) -> Residuals:
    """What the second sums of sites come to, the same as under masks.

    Raises:
        UpdateError: they are beyond what can be added up.
    """
    layout = residuals_layout(settings)
    return layout.decode(sum_of(layout, sites, len(sites)))


def finite_slopes(together: Moments, columns: Sequence[str]) -> Floats:
    """See `solve_slopes`.

    Raises:
        RunError: a covariate does not vary by itself.
        UpdateError: the sums are beyond what numbers hold.
    """
    try:
        slopes_QP = solve_slopes([together])
    except np.linalg.LinAlgError:
        raise UpdateError("the sums cannot be solved") from None
    except ValueError as error:
        raise RunError(
            f"harmonization: {columns[error.args[0]]} has one value at each scanner, or follows from the other "
            "covariates; take it out of `harmonization.covariates`"
        ) from None
    if not np.isfinite(slopes_QP).all():
        raise UpdateError("the slopes are not finite")
    return slopes_QP


def _sizes(sums: Moments) -> Floats:
    """How much of each feature goes with the covariates, in its own unit: the largest over these, P."""
    scale_Q = np.sqrt(np.maximum(np.diag(sums.covariance_QQ), 1e-300) * sums.num_cases)
    size_P: Floats = (np.abs(sums.cross_QP) / scale_Q[:, None]).max(axis=0)
    return size_P
