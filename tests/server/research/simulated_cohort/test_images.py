"""Images of simulated cases: lesion contrast, differing sites."""

from itertools import combinations

import numpy as np
import pytest

from msfl_server.research.simulated_cohort.cases import ScannedVisit, draw_site, simulate_case

pytestmark = pytest.mark.slow

NUM_CASES = 2


@pytest.fixture(scope="module")
def visits() -> list[list[tuple[ScannedVisit, ScannedVisit]]]:
    """The visits of the cases of three sites."""
    return [
        [simulate_case(draw_site(0, site, 2.0), (0, site, case), 2.0)[1] for case in range(NUM_CASES)]
        for site in range(3)
    ]


def _ratio(image: np.ndarray, mask: np.ndarray) -> float:
    return float(image[mask > 0].mean() / image[image > 0].mean())


def test_lesions_are_bright_on_flair_and_dark_or_alike_on_t1w(
    visits: list[list[tuple[ScannedVisit, ScannedVisit]]],
) -> None:
    baseline = [first for site in visits for first, _ in site if first.mask_DHW.sum() > 20]
    flair = [_ratio(case.flair_DHW, case.mask_DHW) for case in baseline]
    t1w = [_ratio(case.t1w_DHW, case.mask_DHW) for case in baseline]
    # Two real patients: 1.39 and 1.51, 1.02 and 0.93; gamma and sequence spread the sites around them.
    assert 1.33 < np.mean(flair) < 1.52
    assert 0.85 < np.mean(t1w) < 1.10
    assert min(flair) > 1.1


def test_heads_differ_as_real_ones_do(visits: list[list[tuple[ScannedVisit, ScannedVisit]]]) -> None:
    found = []
    for site in visits:
        for (one, _), (other, _) in combinations(site, 2):
            both = (one.flair_DHW > 0) & (other.flair_DHW > 0)
            found.append(np.corrcoef(one.flair_DHW[both], other.flair_DHW[both])[0, 1])
    # Two real patients at 2 mm: .25.
    assert 0.08 < np.mean(found) < 0.25


def test_sites_look_different(visits: list[list[tuple[ScannedVisit, ScannedVisit]]]) -> None:
    edges = np.linspace(0, 2500, 60)
    histograms = []
    for site in visits:
        values = [np.histogram(s.flair_DHW[s.flair_DHW > 0], edges, density=True)[0] for s, _ in site]
        histograms.append(values)
    means = [np.mean(values, 0) for values in histograms]
    width = edges[1] - edges[0]
    between = [np.abs(means[a] - means[b]).sum() * width / 2 for a, b in ((0, 1), (0, 2), (1, 2))]
    within = np.mean(
        [np.abs(v - m).sum() * width / 2 for values, m in zip(histograms, means, strict=True) for v in values]
    )
    assert np.mean(between) > 1.5 * within


def test_follow_up_keeps_the_anatomy(visits: list[list[tuple[ScannedVisit, ScannedVisit]]]) -> None:
    for first, second in visits[0]:
        both = (first.flair_DHW > 0) & (second.flair_DHW > 0)
        assert np.corrcoef(first.flair_DHW[both], second.flair_DHW[both])[0, 1] > 0.7
        assert second.mask_DHW.sum() > 0.6 * first.mask_DHW.sum()


def test_brains_are_of_human_size(visits: list[list[tuple[ScannedVisit, ScannedVisit]]]) -> None:
    for site in visits:
        for first, _ in site:
            volume_l = (first.flair_DHW > 0).sum() * np.prod(first.grid.spacing_mm) / 1e6
            assert 0.9 < volume_l < 2.4
