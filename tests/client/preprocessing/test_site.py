"""A site's cases into the common space: cached, resumed, left out with a reason, and read by check and training."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from tests.brains import crooked_template
from tests.commands import run_main, take_interrupts

from msfl_client.cli.main import main
from msfl_client.data.aligned_images import read_aligned
from msfl_client.data.bids import find_cases
from msfl_client.data.checks import check_site
from msfl_client.data.derivative import current, from_derivative, read_derived
from msfl_client.data.findings import FIXES
from msfl_client.data.qc_record import figures, odd_figures, robust_z
from msfl_client.imaging.registration import load_template, template_brain
from msfl_client.preprocessing.pipeline import preprocess_case
from msfl_client.preprocessing.qc_page import page_path, write_page
from msfl_client.preprocessing.site import LOCK, Outcome, picture_path, preprocess_site, preprocess_to_disk
from msfl_client.segmentation.network_input import make_network_input
from msfl_client.segmentation.own_grid import metrics_on_own_grid, own_truth
from msfl_common.config.site import SiteConfig
from msfl_common.config.study import Inputs
from msfl_common.errors import CohortError, InputError
from msfl_common.system.lock import held

INPUTS = Inputs(spacing_mm=4.0)
COMMAND = [sys.executable, "-c", "from msfl_client.cli.main import main; main()"]
FOLDERS = [str(Path(__file__).parents[3] / side) for side in ("common", "client")]
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(FOLDERS), "COLUMNS": "160"}


def add_brain(site, subject: str, visit: str | None = None, gain: float = 1.0) -> None:
    """A case on the template at 4 mm, its header full of what must not be carried over."""
    template = load_template(4.0)
    noise = np.random.default_rng(sum(map(ord, f"{site.root.name}{subject}{visit}"))).uniform(0, 20, template.shape)
    brain_DHW = template_brain(4.0)
    for contrast in ("T1w", "FLAIR"):
        voxels = (1000 * gain * crooked_template(4.0) + noise + 1 + 50 * (contrast == "FLAIR")) * brain_DHW
        image = nib.Nifti1Image(voxels.astype(np.float32), template.affine)
        image.header["descrip"] = b"Quibble 1961"
        image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Quibble"))
        nib.save(image, site.image(subject, contrast, visit))
    mask = np.zeros(template.shape, np.uint8)
    mask[25:27, 28:30, 25] = 1
    nib.save(nib.Nifti1Image(mask, template.affine), site.mask(subject, visit))


def add_head(site, subject: str) -> None:
    """A whole head, as far as a check can tell."""
    noise = np.random.default_rng(0).normal(100, 10, (40, 46, 34)).astype(np.float32)
    for contrast in ("T1w", "FLAIR"):
        site.save(site.image(subject, contrast), noise + (contrast == "FLAIR"))
    site.save(site.mask(subject), np.zeros(noise.shape, np.uint8))


@pytest.fixture
def brains(make_site: Callable):
    site = make_site()
    for subject in ("sub-01", "sub-02"):
        add_brain(site, subject)
    return site


def one_by_one(config: SiteConfig, inputs: Inputs = INPUTS) -> dict[str, str]:
    """`preprocessing.site` without the processes: what each case became."""
    config.state.mkdir(mode=0o700, exist_ok=True)
    cases, _ = find_cases(config, inputs.contrasts)
    return {
        case.key: "current" if current(case, config, inputs) else preprocess_to_disk(case, config, inputs, []).status
        for case in cases
    }


@pytest.mark.slow
def test_a_site_is_preprocessed_once(brains) -> None:
    config = brains.config()
    seen: list[tuple[int, int]] = []
    outcomes = preprocess_site(config, INPUTS, 1, lambda done, total: seen.append((done, total)))
    assert [(outcome.key, outcome.status) for outcome in outcomes] == [("sub-01", "done"), ("sub-02", "done")]
    assert seen == [(0, 2), (1, 2), (2, 2)]
    again = preprocess_site(config, INPUTS, 1)
    assert [outcome.status for outcome in again] == ["current", "current"]
    root = config.state / "preprocessed"
    assert json.loads((root / "dataset_description.json").read_text())["DatasetType"] == "derivative"
    names = sorted(path.name for path in (root / "sub-01" / "anat").iterdir())
    assert names == [
        "sub-01_space-MNI152_desc-brain_mask.nii.gz",
        "sub-01_space-MNI152_desc-preproc_FLAIR.nii.gz",
        "sub-01_space-MNI152_desc-preproc_T1w.nii.gz",
        "sub-01_space-MNI152_desc-preproc_provenance.json",
        "sub-01_space-MNI152_label-lesion_mask.nii.gz",
    ]


@pytest.mark.slow
def test_only_what_changed_is_done_again(brains) -> None:
    config = brains.config()
    assert one_by_one(config) == {"sub-01": "done", "sub-02": "done"}
    os.utime(brains.image("sub-01", "T1w"))
    assert one_by_one(config) == {"sub-01": "current", "sub-02": "current"}
    add_brain(brains, "sub-02", gain=2.0)
    assert one_by_one(config) == {"sub-01": "current", "sub-02": "done"}
    brains.mask("sub-01").unlink()
    assert one_by_one(config) == {"sub-01": "done", "sub-02": "current"}
    assert read_derived(from_derivative(brains.cases()["sub-01"], config)).lesion_DHW is None
    cases = brains.cases()
    assert current(cases["sub-01"], config, INPUTS)
    assert not current(cases["sub-01"], config, Inputs(spacing_mm=3.0))
    assert not current(cases["sub-01"], config, Inputs(spacing_mm=4.0, denoising="anisotropic-diffusion"))
    assert not current(cases["sub-01"], config, Inputs(spacing_mm=4.0, contrasts=("T1w",)))
    assert not current(cases["sub-01"], config.model_copy(update={"preprocessed": "common-space"}), INPUTS)


@pytest.mark.slow
def test_images_are_denoised_once_and_the_derivative_says_so(brains) -> None:
    config, asked = brains.config(), Inputs(spacing_mm=4.0, denoising="anisotropic-diffusion")
    case = brains.cases()["sub-01"]
    plain = preprocess_case(case, INPUTS).case
    assert preprocess_to_disk(case, config, asked, []).status == "done"
    derived = from_derivative(case, config)
    assert current(case, config, asked).denoising == "anisotropic-diffusion"
    read = read_derived(derived)
    for contrast, image_DHW in read.images_DHW.items():
        assert not np.array_equal(image_DHW, plain.images_DHW[contrast])
        again = read_aligned(derived, asked.channels, "FLAIR", asked.denoising).images[contrast]
        assert np.array_equal(np.asarray(again.dataobj), image_DHW)


@pytest.mark.slow
def test_a_derivative_keeps_the_classes_of_its_lesions(brains) -> None:
    config, asked = brains.config(), Inputs(spacing_mm=4.0, lesion_classes=("lesion", "black-hole"))
    image = nib.load(brains.mask("sub-01"))
    label = np.asarray(image.dataobj).copy()
    label[25, 28:30, 25] = 2
    nib.save(nib.Nifti1Image(label, image.affine), brains.mask("sub-01"))
    assert one_by_one(config, asked) == {"sub-01": "done", "sub-02": "done"}
    assert not current(brains.cases()["sub-01"], config, INPUTS)
    checked = check_site(config, asked)
    assert checked.cases[0].mask.parts[-4] == "preprocessed"
    assert np.bincount(make_network_input(checked.cases[0], asked).label_DHW.ravel())[1:].tolist() == [2, 2]


@pytest.mark.slow
def test_a_derivative_is_read_as_it_was_made_and_by_training(brains) -> None:
    config = brains.config()
    one_by_one(config)
    case = brains.cases()["sub-01"]
    read = read_derived(from_derivative(case, config))
    template = load_template(4.0)
    assert np.allclose(read.affine, template.affine)
    assert np.array_equal(read.brain_DHW, template_brain(4.0))
    assert read.lesion_DHW.sum() == 4
    assert read.images_DHW["T1w"].dtype == np.float32
    assert np.median(read.images_DHW["T1w"][read.brain_DHW]) == pytest.approx(1000, abs=2)
    checked = check_site(config, INPUTS)
    assert [found.images["T1w"].parts[-4] for found in checked.cases] == ["preprocessed"] * 2
    assert checked.cases[0] == from_derivative(case, config)
    assert [found.images["T1w"] for found in checked.found] == [brains.image(f"sub-0{n}", "T1w") for n in (1, 2)]
    prepared = make_network_input(checked.cases[0], INPUTS)
    assert prepared.label_DHW.sum() == 4
    drawn = own_truth(checked.cases[0], case, config)
    found = metrics_on_own_grid(prepared.label_DHW.astype(np.float32), prepared.affine, drawn)
    assert found["dsc_native"] == found["lesion_f1_native"] == 1
    assert np.unique(prepared.image_CDHW[0]).size <= np.unique(read.images_DHW["T1w"]).size


@pytest.mark.slow
def test_a_derivative_carries_no_text_of_its_source(brains) -> None:
    config = brains.config()
    one_by_one(config)
    files = [path for path in (config.state / "preprocessed").rglob("*") if path.is_file()]
    assert len(files) == 12
    for path in files:
        raw = path.read_bytes()
        assert b"Quibble" not in (gzip.decompress(raw) if path.suffix == ".gz" else raw), path
    image = nib.load(from_derivative(brains.cases()["sub-01"], config).images["T1w"])
    assert int(image.header["sform_code"]) == 4
    assert not image.header.extensions


@pytest.mark.slow
def test_two_runs_give_the_same_bytes(brains, tmp_path: Path) -> None:
    states = [tmp_path / "one", tmp_path / "two"]
    for state in states:
        one_by_one(brains.config().model_copy(update={"state": state}))
    for made in (states[0] / "preprocessed").rglob("*.*"):
        assert made.read_bytes() == (states[1] / made.relative_to(states[0])).read_bytes(), made


def test_whole_heads_have_to_be_preprocessed(brains) -> None:
    add_head(brains, "sub-03")
    checked = check_site(brains.config(), INPUTS)
    assert [case.key for case in checked.cases] == ["sub-01", "sub-02"]
    assert checked.excluded == {
        "sub-03": ["expected skull-stripped images, or a preprocessed case; not skull-stripped: T1w, FLAIR"]
    }
    assert "msfl-client preprocess" in FIXES["whole-head"]
    declared = brains.config(preprocessed="brain")
    assert len(check_site(declared, INPUTS).cases) == 3
    assert len(check_site(brains.config(preprocessed="none"), INPUTS).cases) == 0


@pytest.mark.slow
def test_a_case_that_changed_since_is_told(brains) -> None:
    config = brains.config()
    one_by_one(config)
    add_brain(brains, "sub-02", gain=2.0)
    checked = check_site(config, INPUTS)
    assert {finding.rule for finding in checked.of_case("sub-02")} == {"out-of-date", "near-image"}
    assert checked.cases[1].images["T1w"] == brains.image("sub-02", "T1w")


@pytest.mark.slow
def test_bad_cases_are_left_out_each_with_its_reason(brains) -> None:
    add_brain(brains, "sub-03", "ses-1")
    brains.image("sub-03", "FLAIR", "ses-1").unlink()
    add_brain(brains, "sub-04")
    content = brains.image("sub-04", "T1w").read_bytes()
    brains.image("sub-04", "T1w").write_bytes(content[: len(content) // 2])
    add_brain(brains, "sub-05")
    localiser = nib.Nifti1Image(np.ones((64, 64, 3), np.float32), np.diag([4.0, 4, 8, 1]))
    nib.save(localiser, brains.image("sub-05", "T1w"))
    config = brains.config()
    cases, _ = find_cases(config, INPUTS.contrasts)
    reasons = {case.key: preprocess_to_disk(case, config, INPUTS, []).reason for case in cases}
    assert reasons["sub-01"] == ""
    assert reasons["sub-03_ses-1"] == "no FLAIR image"
    assert "truncated or damaged gzip file" in reasons["sub-04"]
    assert "only 3 slices; expected at least 10" in reasons["sub-05"]


def test_a_localiser_beside_the_diagnostic_series_is_not_used(brains) -> None:
    localiser = nib.Nifti1Image(np.ones((64, 64, 3), np.float32), np.diag([4.0, 4, 8, 1]))
    nib.save(localiser, brains.place("sub-01") / "sub-01_acq-localizer_T1w.nii.gz")
    assert one_by_one(brains.config())["sub-01"] == "done"


def test_an_enhanced_t1_is_used_only_without_another_and_is_told(brains) -> None:
    plain = brains.image("sub-01", "T1w")
    other = plain.with_name("sub-01_acq-3d_T1w.nii.gz")
    other.write_bytes(plain.read_bytes())
    plain.with_name("sub-01_T1w.json").write_text('{"ContrastBolusAgent": "Gadovist"}')
    cases, findings = find_cases(brains.config(), INPUTS.contrasts)
    assert cases[0].images["T1w"] == other
    assert [finding.rule for finding in findings] == ["several-files"]
    other.unlink()
    cases, findings = find_cases(brains.config(), INPUTS.contrasts)
    assert cases[0].images["T1w"] == plain
    assert findings[0].text == "T1w is contrast-enhanced, and there is no other: sub-01_T1w.nii.gz"


@pytest.mark.slow
def test_no_case_at_all_is_an_error_of_one_line(site) -> None:
    for path in site.root.glob("sub-*/anat/*_FLAIR.nii.gz"):
        path.unlink()
    with pytest.raises(CohortError, match="none of 3 cases can be used; sub-01: no FLAIR image"):
        preprocess_site(site.config(), INPUTS, 1)


@pytest.mark.slow
def test_folders_are_kept_apart_and_only_one_process_works(brains, make_site: Callable) -> None:
    second = make_site("more")
    add_brain(second, "sub-01")
    config = brains.config(second.root)
    assert one_by_one(config) == {"sub-01": "done", "sub-02": "done", "sub-01_data-1": "done"}
    made = {case.key: from_derivative(case, config).images["T1w"] for case in find_cases(config, INPUTS.contrasts)[0]}
    assert made["sub-01"].read_bytes() != made["sub-01_data-1"].read_bytes()
    assert "data-1" in made["sub-01_data-1"].parts
    with held(config.state / LOCK, ""), pytest.raises(InputError, match="is being preprocessed by another process"):
        preprocess_site(config, INPUTS, 1)


@pytest.mark.long
@pytest.mark.slow
def test_an_interrupted_run_goes_on(brains) -> None:
    names = [f"sub-{number:02d}" for number in range(3, 9)]
    for name in names:
        add_brain(brains, name)
    site_file = brains.root.parent / "site.yaml"
    site_file.write_text("name: here\ndata: bids\nstate: state\n")
    study = brains.root.parent / "study.yaml"
    study.write_text("name: s\ninputs: {spacing_mm: 4.0}\n")
    command = ["preprocess", str(site_file), "--study", str(study), "--json"]
    process = subprocess.Popen(
        [*COMMAND, *command],
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=take_interrupts,
    )
    root = brains.root.parent / "state" / "preprocessed"
    while len(list(root.glob("sub-*/anat/*provenance.json"))) < 2:
        time.sleep(0.05)
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said.strip()) == (130, "interrupted")
    (root / "sub-01" / ".anat.left").mkdir(parents=True, exist_ok=True)
    kept = len(list(root.glob("sub-*/anat/*provenance.json")))
    assert 2 <= kept < 2 + len(names)
    done = run_main(main, *command)
    assert (done.returncode, done.stderr) == (0, "")
    statuses = [case["status"] for case in json.loads(done.stdout)["cases"]]
    assert sorted(statuses) == ["current"] * kept + ["done"] * (2 + len(names) - kept)
    assert not list(root.rglob(".*"))


def test_the_page_is_one_file_that_needs_no_other(brains) -> None:
    config = brains.config()
    one_by_one(config)
    left_out = Outcome("sub-09", "left out", "<b>no FLAIR image</b>")
    assert write_page(config, INPUTS, [left_out]) == {"sub-01": [], "sub-02": []}
    page = page_path(config).read_text()
    assert page.count("data:image/png;base64,") == 2
    assert "&lt;b&gt;no FLAIR image" in page
    assert str(config.state) not in page
    assert "http" not in page
    assert "prefers-color-scheme: dark" in page
    assert picture_path(brains.cases()["sub-01"], config).read_bytes().startswith(b"\x89PNG")


def test_outliers_stand_out_from_five_cases_on() -> None:
    usual = {f"sub-{number}": {"brain, ml": 1200.0 + 10 * number, "coverage": 0.95} for number in range(4)}
    odd = usual | {"sub-9": {"brain, ml": 1900.0, "coverage": 0.95}}
    assert odd_figures(odd)["sub-9"] == ["brain, ml"]
    assert not any(names for key, names in odd_figures(odd).items() if key != "sub-9")
    fewer = dict(list(odd.items())[2:])
    assert not any(odd_figures(fewer).values())
    assert odd_figures({"sub-1": {"coverage": 0.7, "overlap": 0.95}}) == {"sub-1": ["coverage"]}


def test_robust_z() -> None:
    assert robust_z([1, 2, 3, 4, 5]) == pytest.approx([-2 / 1.4826, -1 / 1.4826, 0, 1 / 1.4826, 2 / 1.4826])
    assert robust_z([7, 7, 7, 7, 9]) == [0] * 5
    assert robust_z([1, 2, 3, 100]) == [0] * 4


def test_figures_leave_out_what_was_not_measured(brains) -> None:
    config = brains.config()
    one_by_one(config)
    quality = current(brains.cases()["sub-01"], config, INPUTS).quality
    flat = figures(quality)
    assert flat["overlap"] == 1.0
    assert "similarity" not in flat
    assert flat["T1w WM/GM"] > 1
