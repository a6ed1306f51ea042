"""Cases of two visits: which visit is the earlier one, whose the mask is, and who cannot be used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from msfl_client.data.checks import check_site
from msfl_client.data.visit_pairs import study_cases
from msfl_common.config.study import Inputs

TWO = Inputs(contrasts=("FLAIR",), spacing_mm=4.0, visits=2)


def add_visits(site: Any, subject: str, visits: Sequence[str], new: int | None = 4) -> None:
    """Good visits, each with a mask of all lesions and, but of the first, one of `new` voxels of new lesions."""
    for number, visit in enumerate(visits):
        site.add(subject, visit, contrasts=("FLAIR",))
        if number and new is not None:
            mask = site.mask(subject, visit)
            site.save(mask.with_name(mask.name.replace("lesion", "newlesion")), site.lesions(new))


def test_a_visit_comes_with_the_one_before_it(make_site: Callable[..., Any]) -> None:
    site = make_site()
    add_visits(site, "sub-01", ("ses-1", "ses-2", "ses-10"))
    cases, findings = study_cases(site.config(), TWO)
    assert [case.key for case in cases] == ["sub-01_ses-2", "sub-01_ses-10"]
    assert cases[1].images == {
        "FLAIR": site.image("sub-01", "FLAIR", "ses-10"),
        "earlier-FLAIR": site.image("sub-01", "FLAIR", "ses-2"),
    }
    assert cases[1].mask is not None
    assert cases[1].mask.name == "sub-01_ses-10_label-newlesion_mask.nii.gz"
    assert [finding for finding in findings if finding.level == "fail"] == []
    checked = check_site(site.config(), TWO)
    assert [case.key for case in checked.cases] == ["sub-01_ses-2", "sub-01_ses-10"]
    assert not [finding for finding in checked.findings if finding.rule == "same-image"]


def test_times_go_before_names(make_site: Callable[..., Any]) -> None:
    site = make_site()
    add_visits(site, "sub-01", ("ses-post", "ses-pre"))
    (case,), (finding,) = study_cases(site.config(), TWO)
    assert (finding.level, finding.case, finding.rule) == ("fail", case.key, "visits")
    assert "ses-post and ses-pre is the earlier one" in finding.text
    table = site.root / "sub-01" / "sub-01_sessions.tsv"
    table.write_text("session_id\tdate\nses-pre\t2020-01-31\nses-post\t2021-02-01\n")
    (case,), _ = study_cases(site.config(), TWO)
    assert (case.visit_id, case.images["earlier-FLAIR"]) == ("ses-post", site.image("sub-01", "FLAIR", "ses-pre"))
    table.write_text("session_id\tdays\nses-pre\t400\nses-post\t0\n")
    assert study_cases(site.config(), TWO)[0][0].visit_id == "ses-pre"


@pytest.mark.parametrize("times", ["0\nses-02\t", "7\nses-02\t7"])
def test_without_a_time_of_its_own_for_each_nothing_is_guessed_from_times(
    make_site: Callable[..., Any], times: str
) -> None:
    site = make_site()
    add_visits(site, "sub-01", ("ses-01", "ses-02"))
    (site.root / "sub-01" / "sub-01_sessions.tsv").write_text(f"session_id\tdays\nses-01\t{times}\n")
    (case,), findings = study_cases(site.config(), TWO)
    assert case.visit_id == "ses-02"
    assert bool(findings) == times.startswith("7")


def test_who_cannot_be_used_is_named(make_site: Callable[..., Any]) -> None:
    site = make_site()
    add_visits(site, "sub-01", ("ses-01",))
    add_visits(site, "sub-02", ("ses-01", "ses-02"), new=None)
    add_visits(site, "sub-03", ("ses-01", "ses-02"), new=0)
    site.add("sub-04", contrasts=("FLAIR",))
    checked = check_site(site.config(), TWO)
    assert [case.key for case in checked.cases] == ["sub-03_ses-02"]  # nothing is new: that counts
    assert checked.excluded["sub-01_ses-01"] == [
        "no earlier visit: new lesions are those that appear between two visits"
    ]
    assert checked.excluded["sub-02_ses-02"] == ["no manual mask of new lesions"]
    assert checked.excluded["sub-04"][0].startswith("no earlier visit")
    assert any(
        "sub-02_ses-02_label-newlesion_mask.nii.gz" in finding.text for finding in checked.of_case("sub-02_ses-02")
    )


def test_what_is_wrong_with_the_earlier_image_is_said_of_the_case(make_site: Callable[..., Any]) -> None:
    site = make_site()
    add_visits(site, "sub-01", ("ses-01", "ses-02"))
    site.save(site.image("sub-01", "FLAIR", "ses-01"), np.zeros_like(site.head("")))
    checked = check_site(site.config(), TWO)
    assert any(text.startswith("earlier-FLAIR: every voxel") for text in checked.excluded["sub-01_ses-02"])


def test_one_visit_is_as_it_was(make_site: Callable[..., Any]) -> None:
    site = make_site()
    add_visits(site, "sub-01", ("ses-01", "ses-02"))
    cases, findings = study_cases(site.config(), Inputs(contrasts=("FLAIR",), spacing_mm=4.0))
    assert [case.key for case in cases] == ["sub-01_ses-01", "sub-01_ses-02"]
    assert [case.mask.name for case in cases if case.mask] == [f"{case.key}_label-lesion_mask.nii.gz" for case in cases]
    assert findings == []
