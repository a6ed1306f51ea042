"""`msfl-client predict --image`: images that lie in no BIDS folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.commands import run_main

from msfl_client.cli.main import main
from msfl_common.config.study import Inputs, StudyConfig
from msfl_common.models.model_folder import Provenance, save_model
from msfl_common.models.network import build_network, get_weights


@pytest.fixture
def model(tmp_path: Path, tiny_study: StudyConfig) -> Path:
    return save(tmp_path / "model", tiny_study)


def save(folder: Path, study: StudyConfig) -> Path:
    save_model(folder, study, get_weights(build_network(study)), Provenance(rounds_completed=1, sites={}))
    return folder


def words(site, model: Path, out: Path, subject: str = "sub-01") -> list[Any]:  # type: ignore[no-untyped-def]
    images = [f"--image={name}={site.image(subject, name)}" for name in ("FLAIR", "T1w")]
    return ["predict", "--model", model, "--output", out, *images]


def test_images_are_predicted_as_in_a_folder(site, model: Path, tmp_path: Path) -> None:
    folder = run_main(main, "predict", "--model", model, "--input", site.root, "--output", tmp_path / "folder")
    assert folder.returncode == 0, folder.stderr
    done = run_main(main, *words(site, model, tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    made = sorted((tmp_path / "out" / "sub-01").rglob("*.*"))
    assert len(made) == 3  # mask, map and what they are of
    for path in (*made, tmp_path / "out" / "qc" / "sub-01.png"):
        assert path.read_bytes() == (tmp_path / "folder" / path.relative_to(tmp_path / "out")).read_bytes()
    in_folder = (tmp_path / "folder" / "lesions.tsv").read_text().splitlines()
    assert (tmp_path / "out" / "lesions.tsv").read_text().splitlines() == in_folder[:2]


def test_two_people_do_not_share_a_name(site, model: Path, tmp_path: Path) -> None:
    for number in ("1", "2"):
        (tmp_path / number).mkdir()
        for contrast in ("T1w", "FLAIR"):
            shutil.copy(site.image(f"sub-0{number}", contrast), tmp_path / number / f"{contrast.lower()}.nii.gz")

    def command(number: str, *more: Any) -> list[Any]:
        there = tmp_path / number
        images = [f"--image=FLAIR={there / 'flair.nii.gz'}", f"--image=T1w={there / 't1w.nii.gz'}"]
        return ["predict", "--model", model, "-o", tmp_path / "out", *images, "--json", *more]

    assert json.loads(run_main(main, *command("1")).stdout)[0]["participant_id"] == "sub-flair"
    assert run_main(main, *command("1")).returncode == 0
    refused = run_main(main, *command("2"))
    assert refused.returncode == 2
    assert "was predicted from other images; name these otherwise with --subject" in refused.stderr
    named = run_main(main, *command("2", "--subject", "7", "--visit", "2"))
    assert named.returncode == 0, named.stderr
    assert (tmp_path / "out" / "sub-7" / "ses-2" / "anat" / "sub-7_ses-2_label-lesion_mask.nii.gz").exists()


def test_what_a_folder_is_warned_of_or_refused_for_images_are_too(site, model: Path, tmp_path: Path) -> None:
    site.image("sub-01", "T1w").with_name("sub-01_T1w.json").write_text('{"ContrastBolusAgent": "Gadovist"}')
    done = run_main(main, *words(site, model, tmp_path / "out"), "--json")
    assert "T1w is contrast-enhanced" in json.loads(done.stdout)[0]["warnings"][0]
    site.image("sub-02", "FLAIR").write_text("no image")
    refused = run_main(main, *words(site, model, tmp_path / "out", "sub-02"))
    assert refused.returncode == 2
    assert "sub-02 n/a: left out: FLAIR: " in refused.stderr


@pytest.mark.parametrize(
    ("images", "text"),
    [
        (["FLAIR=F1"], "the model needs T1w, too: --image T1w=FILE --image FLAIR=FILE"),
        (["FLAIR=F1", "T1w=T1", "T2w=T1"], "the model does not see T2w, but T1w, FLAIR; leave it out"),
        (["flair=F1", "T1w=T1"], "no such contrast: flair; did you mean FLAIR"),
        (["FLAIR=F1", "FLAIR=F2", "T1w=T1"], "FLAIR is named twice, also as"),
        (["FLAIR=X", "T1w=X"], "the same file as FLAIR"),
        (["FLAIR=F1", "T1w=nowhere"], "no such file"),
        (["FLAIR=F1", "T1w=."], "a folder, not a file"),
        (["FLAIR=T1", "T1w=F1"], "its name says T1w; give it as that, or correct its name"),
        (["FLAIR=F1", "T1w=LINK"], "a link to a file that is not there; fetch that file"),
        (["FLAIR=F1", "T1w=MGZ"], "expected .nii or .nii.gz; FreeSurfer's: mri_convert makes .nii.gz of it"),
        (["FLAIR=F1", "T1w=IMG"], "expected .nii or .nii.gz; a pair of .hdr and .img"),
        (["FLAIR=F1", "T1w=ANY"], "expected .nii or .nii.gz; convert it to NIfTI, or correct its name"),
        (["F1", "T1w=T1"], "expected a contrast and its file: --image T1w=FILE"),
        (["FLAIR=F1", "T1w=T2"], "the files are named as of sub-01 and sub-02"),
    ],
)
def test_what_is_wrong_with_the_images_is_said(images: list[str], text: str, site, model: Path, tmp_path: Path) -> None:
    places = {f"{name[0]}{n}": site.image(f"sub-0{n}", name) for name in ("FLAIR", "T1w") for n in (1, 2)}
    for name, file in (("MGZ", "t1.mgz"), ("IMG", "t1.img"), ("ANY", "IM0001")):
        places[name] = tmp_path / file
        places[name].touch()
    places["X"] = tmp_path / "x.nii.gz"
    places["X"].touch()
    places["LINK"] = tmp_path / "t1.nii.gz"
    places["LINK"].symlink_to("nowhere.nii.gz")
    given = ["=".join(str(places.get(part, part)) for part in word.split("=")) for word in images]
    command = ["predict", "--model", model, "--output", tmp_path / "out"]
    done = run_main(main, *command, *(f"--image={word}" for word in given))
    assert done.returncode == 2
    assert text in done.stderr
    assert not (tmp_path / "out").exists()


def test_raw_data_stay_as_they_are(site, model: Path, tmp_path: Path) -> None:
    for place in (site.root, site.root / "new", site.image("sub-01", "T1w").parent):
        done = run_main(main, *words(site, model, place))
        assert done.returncode == 2
        assert "the images that are read lie" in done.stderr
    both = run_main(main, *words(site, model, tmp_path / "out"), "--input", site.root)
    assert (both.returncode, "--image and --input: give the images, or the folder" in both.stderr) == (2, True)


def test_a_model_that_sees_other_contrasts_asks_for_them(site, tiny_study: StudyConfig, tmp_path: Path) -> None:
    site.add("sub-04", contrasts=("T2w", "PDw"))
    inputs = Inputs(spacing_mm=4.0, contrasts=("T2w", "PDw"))
    model = save(tmp_path / "t2", tiny_study.model_copy(update={"inputs": inputs}))
    done = run_main(main, *words(site, model, tmp_path / "out"))
    assert (done.returncode, "the model does not see FLAIR, but T2w, PDw" in done.stderr) == (2, True)
    images = [f"--image={name}={site.image('sub-04', name)}" for name in ("T2w", "PDw")]
    done = run_main(main, "predict", "--model", model, "--output", tmp_path / "out", *images, "--force")
    assert done.returncode == 0, done.stderr
    command = ["predict", "--model", model, "--input", site.root, "-o", tmp_path / "same", "--subject", "04"]
    folder = run_main(main, *command, "--force")  # made images have a dark rim in every contrast
    assert folder.returncode == 0, folder.stderr
    mask = Path("sub-04", "anat", "sub-04_label-lesion_mask.nii.gz")
    assert (tmp_path / "out" / mask).read_bytes() == (tmp_path / "same" / mask).read_bytes()
