"""What `check` finds at a site as a whole."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from msfl_client.data.checks import check_site
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import Inputs

INPUTS = Inputs()


class TestSite:
    def test_facts_count_lesions_of_three_cubic_millimetres_touching_by_a_corner(self, site):
        voxels = np.zeros((24, 28, 20), np.uint8)
        voxels[5, 5, 5] = voxels[6, 6, 6] = 1
        voxels[12, 12, 12] = 1
        site.save(site.mask("sub-01"), voxels)
        facts = check_site(site.config(), INPUTS).facts["sub-01"]
        assert facts.num_lesions == 2
        assert facts.lesion_ml == pytest.approx(3 * 216 / 1000)
        assert str(facts.grids["FLAIR"]) == "24 x 28 x 20 of 6 x 6 x 6 mm"

    def test_the_same_scan_of_two_patients_keeps_one_and_of_two_sessions_both(self, site):
        site.image("sub-03", "FLAIR").write_bytes(site.image("sub-01", "FLAIR").read_bytes())
        result = check_site(site.config(), INPUTS)
        assert result.excluded == {"sub-03": ["FLAIR: the same voxels as FLAIR of sub-01"]}
        for visit in ("ses-1", "ses-2"):
            site.add("sub-04", visit)
        t1 = site.image("sub-04", "T1w", "ses-1")
        site.image("sub-04", "T1w", "ses-2").write_bytes(t1.read_bytes())
        result = check_site(site.config(), INPUTS)
        assert list(result.excluded) == ["sub-03"]
        assert result.level("sub-04_ses-2") == "warn"

    def test_progress_and_workers(self, site):
        seen: list[tuple[int, int]] = []
        many = check_site(site.config(), INPUTS, lambda done, total: seen.append((done, total)), 3)
        assert seen == [(1, 3), (2, 3), (3, 3)]
        assert [case.key for case in many.cases] == ["sub-01", "sub-02", "sub-03"]
        seen.clear()
        check_site(site.config(), INPUTS, lambda done, total: seen.append((done, total)), 3)
        assert seen == [(3, 3)]

    def test_interrupt_keeps_what_is_done(self, site):
        def interrupt(done, total):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            check_site(site.config(), INPUTS, interrupt)
        assert (site.root.parent / "state" / "cache" / "checks.json").exists()

    @pytest.mark.slow
    def test_works_inside_a_daemon_process(self, site):
        context = multiprocessing.get_context("spawn")
        results = context.SimpleQueue()
        process = context.Process(target=_in_daemon, args=(site.config(), results), daemon=True)
        process.start()
        process.join(60)
        assert process.exitcode == 0
        assert results.get() == 3


def _in_daemon(site: SiteConfig, results) -> None:
    results.put(len(check_site(site, INPUTS, num_workers=2).cases))


@pytest.mark.long
def test_real_patients(open_ms, tmp_path: Path):
    site = SiteConfig(name="here", data=(open_ms,), state=tmp_path)
    result = check_site(site, INPUTS)
    assert [case.key for case in result.cases] == ["sub-07", "sub-19"]
    whole_head = "expected skull-stripped images, or a preprocessed case; not skull-stripped: T1w, FLAIR"
    assert result.excluded == {
        "sub-long01_ses-1": ["no manual lesion mask", whole_head],
        "sub-long01_ses-2": ["no manual lesion mask", whole_head],
    }
    assert result.facts["sub-07"].lesion_ml == pytest.approx(1.3, abs=0.05)
    assert result.facts["sub-19"].lesion_ml == pytest.approx(49.8, abs=0.05)
    without = check_site(site, INPUTS, needs_mask=False)
    assert [without.level(case.key) for case in without.found] == ["pass", "pass", "fail", "fail"]
