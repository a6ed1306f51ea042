"""ComBat over scanners, without pooling rows: what the sites send, and the frozen reference that comes of it.

The model of a feature y at scanner j is  y = alpha_j + z beta + error,  with z the covariates. Two rounds of sums
give the same beta, grand mean and pooled variance as pooled data would (Johnson et al., Biostatistics 2007;
Fortin et al., NeuroImage 2018):

    moments    sum of (z - mean_j z)(z - mean_j z)' and of (z - mean_j z)(y - mean_j y)'   -> beta
    residuals  sum of n_j alpha_j and of the squared residuals                             -> grand mean, variance

Asked with other slopes, the residuals tell no more than the features' variances besides what the moments tell.
Every sum is added over a site's scanners before it leaves. What a scanner does to its images (gamma, delta) is
estimated and kept at the site.

Legend: Q columns of the covariates, P features, N cases.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from msfl_common.config.base import Frozen, Name
from msfl_common.config.study import Harmonization
from msfl_common.system.checked_numbers import MOST_CASES

Floats = NDArray[np.float64]
_DEGREE = 3
_LARGEST = 1e12  # volumes are in ml, ages in years: no figure of a feature comes near it, and its square is finite

Figure = Annotated[float, Field(ge=-_LARGEST, le=_LARGEST)]
Variance = Annotated[float, Field(ge=1e-25, le=_LARGEST**2)]


@dataclass(frozen=True)
class Moments:
    """A site's first sums.

    Attributes:
        num_cases: training cases in them, one of a patient on each scanner.
        num_scanners: scanners in them.
        covariance_QQ: of the covariates within scanners, not divided by the number of cases.
        cross_QP: of covariates and features within scanners, likewise.
    """

    num_cases: int
    num_scanners: int
    covariance_QQ: Floats
    cross_QP: Floats

    @property
    def arrays(self) -> dict[str, Floats]:
        """What crosses the wire, by name."""
        return {"covariance": self.covariance_QQ, "cross": self.cross_QP}


@dataclass(frozen=True)
class Residuals:
    """A site's second sums, of the same cases, given beta.

    Attributes:
        num_cases: training cases in them.
        intercepts_P: sum over scanners of n_j alpha_j.
        squares_P: sum of squared residuals.
        num_scanners: scanners in them; 0 where they are not told, as those of one site are with its first sums.
    """

    num_cases: int
    intercepts_P: Floats
    squares_P: Floats
    num_scanners: int = 0

    @property
    def arrays(self) -> dict[str, Floats]:
        """What crosses the wire, by name."""
        return {"intercepts": self.intercepts_P, "squares": self.squares_P}


class Reference(Frozen):
    """What all scanners are brought to; frozen once made, so that who comes late changes nobody's figures."""

    schema_version: Literal[1] = 1
    study: Name = Field(description="the study that made it")
    settings: Harmonization = Field(description="features, covariates and rules behind it")
    columns: tuple[str, ...] = Field(description="columns of the covariates, Q of them")
    slopes: tuple[tuple[Figure, ...], ...] = Field(description="beta, Q rows of P")
    grand_mean: tuple[Figure, ...] = Field(description="case-weighted mean of the scanners' intercepts, P")
    pooled_variance: tuple[Variance, ...] = Field(description="variance of the residuals, P")
    num_cases: int = Field(ge=1, le=MOST_CASES)
    num_scanners: int = Field(ge=1, le=MOST_CASES)
    num_sites: int = Field(ge=1, le=MOST_CASES)

    @model_validator(mode="after")
    def _shapes_agree(self) -> Self:
        lengths = {len(self.grand_mean), len(self.pooled_variance), *map(len, self.slopes)}
        if lengths != {len(self.settings.feature_names)} or len(self.slopes) != len(self.columns):
            raise ValueError("features, columns and figures do not go together")
        if self.columns != column_names(self.settings):
            raise ValueError("columns: expected those of the settings' covariates")
        return self

    def fits(self, settings: Harmonization) -> bool:
        """Whether it can have been made with these settings: all the same, but for features that did not vary."""
        names = self.settings.feature_names
        return self.settings == settings.model_copy(update={"features": names}) and {*names} <= {
            *settings.feature_names
        }

    @property
    def version(self) -> str:
        """The first 16 digits of its SHA-256: what says that two tables were harmonized alike."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]

    @property
    def beta(self) -> Floats:
        """The slopes as an array, Q x P."""
        return np.array(self.slopes, dtype=np.float64).reshape(len(self.columns), len(self.settings.feature_names))


def column_names(settings: Harmonization) -> tuple[str, ...]:
    """Names of the covariates' columns."""
    return tuple(column_widths(settings))


def column_widths(settings: Harmonization) -> dict[str, float]:
    """Of each of the covariates' columns, by name, how far its values can be apart."""
    widths: dict[str, float] = {}
    for name, one in settings.values.items():
        if name == "age" and settings.age_knots_years:
            splines = range(1, len(settings.age_knots_years) + _DEGREE - 1)
            widths |= {f"age_spline_{number}": 1.0 for number in splines}
        else:
            low, high = one.bounds
            widths |= dict.fromkeys(one.inputs, high - low)
    return widths


def covariate_columns(values: dict[str, Floats], settings: Harmonization) -> NDArray[np.float32]:
    """The covariates of N cases as N x Q columns, float32 as neuroHarmonize uses them.

    Args:
        values: `age` in years, `sex` as 0 (female) or 1 (male), and declared values as their kind is read; N each.
        settings: which of them; with `age_knots_years`, age becomes a cubic B-spline on these fixed knots, an age
            beyond the first or last counts as that. The first basis function is left out: all of them sum to 1.
    """
    columns: list[Floats] = []
    for covariate in settings.covariates:
        value_N = np.asarray(values[covariate], dtype=np.float64)
        knots = settings.age_knots_years
        if covariate == "age" and knots:
            from scipy.interpolate import BSpline  # half a second to load, for those who bend with age

            padded = np.concatenate([[knots[0]] * _DEGREE, knots, [knots[-1]] * _DEGREE])
            basis = BSpline.design_matrix(np.clip(value_N, knots[0], knots[-1]), padded, _DEGREE).toarray()
            columns += list(basis.T[1:])
        else:
            one = settings.values[covariate]
            seen = [one.seen(float(value)) for value in value_N]
            columns += [np.array([inputs[name] for inputs in seen], np.float64) for name in one.inputs]
    num_cases = len(next(iter(values.values()))) if values else 0
    return np.stack(columns, axis=1).astype(np.float32) if columns else np.empty((num_cases, 0), np.float32)


def solve_slopes(sites: Sequence[Moments]) -> Floats:
    """Beta, Q x P, from the moments of all sites.

    Raises:
        ValueError: a column is constant within every scanner, or a mixture of others; its number is the argument.
    """
    covariance_QQ = np.sum([site.covariance_QQ for site in sites], axis=0)
    cross_QP = np.sum([site.cross_QP for site in sites], axis=0)
    scale_Q = np.sqrt(np.diag(covariance_QQ))
    for number in range(len(scale_Q)):
        scales = scale_Q[: number + 1]
        if scales[-1] <= 1e-9 or _is_singular(covariance_QQ[: number + 1, : number + 1] / np.outer(scales, scales)):
            raise ValueError(number)
    solution: Floats = np.linalg.solve(covariance_QQ, cross_QP)
    return solution


class Counted(Protocol):
    """Whose scanners have been counted."""

    @property
    def num_scanners(self) -> int:
        """Scanners behind the first sums."""


def make_reference(
    study: str,
    settings: Harmonization,
    moments: Sequence[Counted],
    residuals: Sequence[Residuals],
    slopes_QP: Floats,
    num_sites: int | None = None,
) -> Reference:
    """The reference from all sites' sums; a feature that varies within no scanner is not in it, and stays as it is.

    Args:
        study: its name.
        settings: of the harmonization.
        moments: what counts each site's scanners.
        residuals: each site's second sums, or what all of them come to.
        slopes_QP: beta.
        num_sites: behind the residuals, where these are added up already.

    Raises:
        ValueError: no feature varies.
    """
    num_cases = sum(site.num_cases for site in residuals)
    variance_P = np.sum([site.squares_P for site in residuals], axis=0) / num_cases
    mean_P = np.sum([site.intercepts_P for site in residuals], axis=0) / num_cases
    varies = [int(number) for number in np.flatnonzero(variance_P > 1e-18 * np.maximum(1.0, mean_P**2))]
    if not varies:
        raise ValueError("no feature varies within any scanner")
    return Reference(
        study=study,
        settings=settings.model_copy(update={"features": tuple(settings.feature_names[number] for number in varies)}),
        columns=column_names(settings),
        slopes=tuple(tuple(map(float, row)) for row in slopes_QP[:, varies]),
        grand_mean=tuple(map(float, mean_P[varies])),
        pooled_variance=tuple(map(float, variance_P[varies])),
        num_cases=num_cases,
        num_scanners=sum(site.num_scanners for site in moments),
        num_sites=len(residuals) if num_sites is None else num_sites,
    )


def _is_singular(correlation: Floats) -> bool:
    return bool(np.linalg.matrix_rank(correlation, tol=1e-9) < len(correlation))
