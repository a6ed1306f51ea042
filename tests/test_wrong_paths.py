"""A wrong path to any command: exit code 2, one line that names it, nothing made and no traceback."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from msfl_client.cli.main import main as client
from msfl_client.egress.gateway import gateway_of, release
from msfl_client.egress.ledger_content import make_officer_key
from msfl_client.imaging.nifti_writer import save_image
from msfl_client.site.folder import init_site
from msfl_common.config.site import load_site
from msfl_common.config.study import StudyConfig, Training
from msfl_common.messages.records import ModelUpdate
from msfl_common.models.evaluated_model import evaluation_of
from msfl_common.models.model_folder import Provenance, save_model
from msfl_common.models.starting_weights import starting_weights
from msfl_common.networks.registry import UNet
from msfl_server.cli.main import main as server
from msfl_server.research.simulated_cohort import make_records
from msfl_server.study.folder import init_study
from msfl_server.study.server_config import ServerConfig
from msfl_server.study.sites import add_site
from tests.client.cli.test_harmonize import make_reference_of_others
from tests.commands import run_main
from tests.kits import take_over
from tests.surveys import survey_of_heads

STUDY = """\
name: pilot
task: classification
min_patients: 2
classification:
  outcome: {endpoint: edss-worsening}
  clinical: [age, sex, edss]
  model: {kind: logistic}
"""

# The command, and what is wrong in it in capitals: `READ` a file or `ENTER` a folder that is to be there, `SEEK` a
# folder of whatever, `SECRET` a file of whatever text, `WRITE` a file and `FILL` a folder that it is to make. The rest
# is in order, and lies in the folder `world`.
CLIENT = (
    "example site --output WRITE",
    "init FILL --name a --data bids",
    "init new --name a --data SEEK",
    "check READ",
    "check site/site.yaml --data-only --study READ",
    "start READ",
    "status READ",
    "stop READ",
    "reset-answers READ pilot --yes",
    "reset-budget READ --yes",
    "join READ site/site.yaml --yes",
    "join study/kits/a.zip READ --yes",
    "approve READ --yes",
    "import-dicom ENTER new",
    "import-dicom bids new --rules READ",
    "merge-masks --rater ENTER --rater raters/b --output new",
    "merge-masks --rater raters/a --rater raters/b --output FILL",
    "preprocess READ",
    "preprocess site/site.yaml --study READ",
    "features READ",
    "features site/site.yaml --study READ",
    "features site/site.yaml --model ENTER",
    "harmonize READ --reference reference.json",
    "harmonize site/site.yaml --reference READ",
    "harmonize site/site.yaml --reference reference.json --study reference.yaml --table READ",
    "harmonize site/site.yaml --reference reference.json --study READ",
    "predict READ --model model --output new",
    "predict --model ENTER --input bids --output new",
    "predict --model model --input ENTER --output new",
    "predict --model model --input bids --output FILL",
    "predict --model model --input bids --output new --authority READ",
    "explain READ --model model --output new",
    "explain --model ENTER --input bids --output new",
    "explain --model model --input ENTER --output new",
    "explain --model model --input bids --output FILL",
    "explain --model model --input bids --output new --authority READ",
    "gain READ",
    "gain site/site.yaml --study READ",
    "gain site/site.yaml --model ENTER",
    "fine-tune READ --model model",
    "fine-tune site/site.yaml --model ENTER",
    "fine-tune site/site.yaml --model model --authority READ",
    "ledger READ",
    "roster READ",
    "ledger site/site.yaml --export WRITE.csv",
    "ledger site/site.yaml --report WRITE.html",
    "ledger site/site.yaml --open 1 --key READ --output new.safetensors --passphrase-file passphrase",
    "ledger site/site.yaml --open 1 --key officer.key --output new.safetensors --passphrase-file SECRET",
    "make-officer-key WRITE --passphrase-file passphrase",
    "make-officer-key new.key --passphrase-file SECRET",
)
SERVER = (
    "example study --output WRITE",
    "make-cohort FILL --without-images --sites 1 --patients 2",
    "make-table --output WRITE",
    "simulate READ --cohort cohort --output new",
    "simulate study.yaml --cohort ENTER --output new",
    "simulate study.yaml --site READ --output new",
    "simulate study.yaml --cohort cohort --output FILL",
    "simulate --resume ENTER",
    "simulate study.yaml --cohort cohort --output new --start-from READ",
    "simulate measured.yaml --cohort cohort --output new --model ENTER",
    "evaluation ENTER",
    "evaluation model --output WRITE",
    "convert-resnet18 READ --output new",
    "simulate READ --cohort cohort --dry-run",
    "simulate study.yaml --cohort ENTER --dry-run",
    "simulate study.yaml --site READ --dry-run",
    "survey READ --cohort cohort",
    "survey study.yaml --cohort ENTER",
    "survey study.yaml --site READ",
    "survey ENTER",
    "plan READ --survey survey.json",
    "plan ENTER",
    "plan lesions.yaml --survey READ",
    "plan lesions.yaml --survey survey.json --output WRITE",
    "report ENTER",
    "compare ENTER cohort",
    "meta-analysis READ",
    "meta-analysis studies.tsv --output FILL",
    "compare READ --cohort cohort --output new",
    "compare study.yaml --cohort ENTER --output new",
    "compare study.yaml --site READ --output new",
    "compare study.yaml --cohort cohort --output FILL",
    "init FILL --host localhost",
    "init new --host localhost --study READ",
    "init new --host localhost --offline-ca FILL",
    "init new --host localhost --passphrase-file SECRET",
    "add-site ENTER b --public-key site/site.key.pub",
    "add-site study b --public-key READ",
    "add-site study b --public-key b.pub --ca-key READ",
    "remove-site ENTER a",
    "renew-certificate ENTER",
    "renew-certificate study --ca-key READ",
    "renew-kits ENTER",
    "check READ",
    "start ENTER",
    "status ENTER",
    "stop ENTER",
    "ledgers ENTER",
    "cross-validate READ --cohort cohort --output new --folds 2",
    "cross-validate study.yaml --cohort ENTER --output new --folds 2",
    "cross-validate study.yaml --site READ --output new --folds 2",
    "cross-validate study.yaml --cohort cohort --output FILL --leave-one-site-out",
    "pipelines READ --table table.tsv --output new",
    "pipelines column.yaml --table READ --output new",
    "pipelines column.yaml --table table.tsv --output FILL",
    "audit READ --cohort cohort --output new",
    "audit column.yaml --cohort ENTER --output new",
    "audit column.yaml --cohort cohort --output FILL",
)
ROLES = ("READ", "ENTER", "FILL", "WRITE", "SECRET", "SEEK")
SIDES: dict[str, tuple[Callable[[], None], tuple[str, ...]]] = {"client": (client, CLIENT), "server": (server, SERVER)}


@contextmanager
def as_any_account() -> Iterator[None]:
    """Without root's right to open every file, which tests in a container have."""
    if sys.platform != "linux" or os.geteuid() != 0:
        yield
        return
    libc, header = ctypes.CDLL(None, use_errno=True), (ctypes.c_uint32 * 2)(0x20080522, 0)
    before, without = (ctypes.c_uint32 * 6)(), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, before) == 0
    without[:] = before[:]
    without[0] &= ~0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, of the effective ones
    assert libc.capset(header, without) == 0
    try:
        yield
    finally:
        assert libc.capset(header, before) == 0


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site, a study folder, a cohort, a model and tables, all in order."""
    world = tmp_path_factory.mktemp("paths")
    (world / "study.yaml").write_text(STUDY)
    (world / "lesions.yaml").write_text("name: pilot\n")
    (world / "survey.json").write_text(survey_of_heads().model_dump_json())
    (world / "passphrase").write_text("correct horse battery staple\n")
    make_records(world / "cohort", num_sites=3, cases_per_site=12, num_nmosd=0, num_controls=0, seed=0)
    shutil.copytree(world / "cohort" / "site-a", world / "bids")
    for rater in ("a", "b"):
        name = world / "raters" / rater / "sub-001" / "anat" / "sub-001_label-lesion_mask.nii.gz"
        save_image(name, np.ones((4, 4, 4), np.uint8), np.eye(4))
    (world / "column.yaml").write_text(
        STUDY.replace("endpoint: edss-worsening", "column: ms_course, classes: [RR, SP]")
    )
    reference = make_reference_of_others()
    (world / "reference.json").write_text(reference.model_dump_json())
    harmonizes = StudyConfig(name="pilot", harmonization=reference.settings)
    (world / "reference.yaml").write_text(harmonizes.model_dump_json(exclude_defaults=True))
    made = make_officer_key(world / "officer.key", (world / "passphrase").read_text().strip())
    init_site(world / "site", "a", world / "bids", None)
    text = (world / "site" / "site.yaml").read_text()
    kept = f"keep_content: {{public_key: {made.public_key_file}}} #"
    (world / "site" / "site.yaml").write_text(text.replace("keep_content: null", kept))
    weights = {"z": np.ones(2, np.float32)}
    release(gateway_of(load_site(world / "site")), ModelUpdate(weights, 9, 0.25, 1.0), StudyConfig(name="pilot"), 3, 9)
    init_site(world / "other", "b", world / "bids", None)
    shutil.copy(world / "other" / "site.key.pub", world / "b.pub")
    study = init_study(world / "study", ServerConfig(hosts=("localhost",)), world / "study.yaml")
    take_over(add_site(study, "a", world / "site" / "site.key.pub"), load_site(world / "site" / "site.yaml"))
    rows = [f"sub-{number:02}\t{number / 7:.3f}\t{('RR', 'SP')[number % 2]}" for number in range(20)]
    (world / "studies.tsv").write_text("study\testimate\tse\na\t.5\t.1\nb\t.6\t.1\n")
    (world / "table.tsv").write_text("\n".join(["participant_id\tx\tms_course", *rows]) + "\n")
    segmentation = StudyConfig(name="pilot", network=UNet(channels=(2, 4)), training=Training(patch_voxels=8))
    save_model(
        world / "model", segmentation, starting_weights(segmentation), Provenance(rounds_completed=1, sites={"a": 5})
    )
    (world / "measured.yaml").write_text(evaluation_of(world / "model", "pilot").model_dump_json())
    return world


def wrong(place: Path, role: str) -> dict[str, Path]:
    """Kind of fault to a path that has it."""
    place.mkdir()
    made = {kind: place / kind for kind in ("missing", "a-file", "a-folder", "binary", "closed", "closed-folder")}
    made["a-file"].write_text("not what was expected\n")
    made["binary"].write_bytes(bytes(range(256)) * 4)
    made["closed"].write_text("name: x\n")
    made["a-folder"].mkdir()
    (made["a-folder"] / "something").write_text("else\n")
    made["closed-folder"].mkdir()
    for name in ("closed", "closed-folder"):
        made[name].chmod(0)
    inside = {"in-a-file": made["a-file"] / "x", "in-closed": made["closed-folder"] / "x"}
    match role:
        case "READ":
            chosen = {name: made[name] for name in ("missing", "a-file", "a-folder", "binary", "closed")} | inside
        case "SECRET":
            chosen = {name: made[name] for name in ("missing", "a-folder", "binary", "closed")} | inside
        case "ENTER":
            chosen = {name: made[name] for name in ("missing", "a-file", "a-folder", "closed-folder")} | inside
        case "SEEK":
            chosen = {name: made[name] for name in ("missing", "a-file")} | inside
        case "FILL":
            chosen = {"a-file": made["a-file"]} | inside
        case _:
            for suffix in (".csv", ".html"):
                (place / f"a-folder{suffix}").mkdir()
            chosen = {"a-folder": made["a-folder"]} | inside
    return chosen


def everything(*folders: Path) -> set[Path]:
    return {path for folder in folders for path in folder.rglob("*")}


@pytest.mark.slow
@pytest.mark.parametrize(("side", "line"), [(side, line) for side, (_, lines) in SIDES.items() for line in lines])
def test_a_wrong_path_is_one_line_that_names_it(
    side: str, line: str, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main, _ = SIDES[side]
    role = next(role for role in ROLES if role in line)
    monkeypatch.chdir(world)
    monkeypatch.setattr("msfl_common.system.progress.LASTING_S", 600.0)  # a busy machine loads for long, and says so
    place, faults = tmp_path / "wrong", []
    for kind, path in wrong(place, role).items():
        before = everything(world, place)
        with as_any_account():
            done = run_main(main, *(word.replace(role, str(path)) for word in line.split()))
        told = done.stderr.splitlines()
        names_it = len(told) == 1 and any(str(name) in told[0] for name in (path, path.parent))
        if done.returncode != 2 or not names_it or "internal error" in told[0] or "[Errno" in told[0]:
            faults.append(f"{kind}: exit code {done.returncode}, {told}")
        for made in sorted(everything(world, place) - before, reverse=True):
            faults.append(f"{kind}: made {made}")
            made.rmdir() if made.is_dir() else made.unlink()
    for closed in (place / "closed", place / "closed-folder"):
        closed.chmod(0o700)  # for who clears up
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("line", ["status", "status --json", "stop", "start", "check", "ledger", "ledger --verify"])
def test_who_may_not_enter_the_state_folder_is_told_so(line: str, world: Path) -> None:
    command, *options = line.split()
    state = world / "site" / "state"
    state.chmod(0)
    try:
        with as_any_account():
            done = run_main(client, command, world / "site", *options)
    finally:
        state.chmod(0o700)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(str(state))
