from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.commands import run_main, take_interrupts

from msfl_client.cli.main import main

COMMAND = [sys.executable, "-c", "from msfl_client.cli.main import main; main()"]
FOLDERS = [str(Path(__file__).parents[3] / side) for side in ("common", "client")]
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(FOLDERS), "COLUMNS": "160"}


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return run_main(main, *arguments)


def run_process(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=120)


@pytest.fixture
def site_file(site) -> Path:
    path = site.root.parent / "site.yaml"
    path.write_text("name: here\ndata: bids\nstate: state\n")
    return path


@pytest.mark.slow
def test_good_site(site_file):
    done = run_process("check", site_file)
    assert done.returncode == 0
    assert done.stderr == ""
    assert "3 of 3 cases usable." in done.stdout
    assert "T1w, FLAIR: 24x28x20, 6x6x6" in done.stdout
    assert "What to do" not in done.stdout
    assert "No study is known yet, so this is what a lesion segmentation with T1w and FLAIR needs" in done.stdout


def test_bad_cases_are_listed_with_reason_and_fix_and_the_rest_is_usable(site, site_file):
    site.image("sub-01", "FLAIR").write_text("no image")
    site.mask("sub-02").unlink()
    done = run("check", site_file)
    assert done.returncode == 0
    assert "FLAIR: holds text, not an image" in done.stdout
    assert "1 of 3 cases usable, 2 excluded." in done.stdout
    assert "excluded by readable: 1 (sub-01)" in done.stdout
    assert "excluded by mask: 1 (sub-02)" in done.stdout
    assert "mask: add the mask" in done.stdout


def test_no_usable_case_exits_2_with_one_line(site, site_file):
    for subject in ("sub-01", "sub-02", "sub-03"):
        site.mask(subject).unlink()
    done = run("check", site_file)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [f"{site_file}: none of 3 cases can be used; the fixes are given above"]
    assert "0 of 3 cases usable, 3 excluded." in done.stdout


def test_json_is_one_document_and_stdout_holds_nothing_else(site, site_file):
    site.image("sub-01", "FLAIR").unlink()
    done = run("check", site_file, "--json")
    document = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert (document["num_cases"], document["num_usable"]) == (3, 2)
    assert document["excluded"] == {"sub-01": ["no FLAIR image"]}
    assert [case["status"] for case in document["cases"]] == ["fail", "pass", "pass"]
    assert document["cases"][1]["grids"]["FLAIR"] == {"shape": [24, 28, 20], "spacing_mm": [6.0, 6.0, 6.0]}


def test_study_sets_the_contrasts_and_shows_the_split(site, site_file):
    study = site_file.with_name("study.yaml")
    study.write_text("name: trial\ninputs: {contrasts: [T1w]}\n")
    site.image("sub-01", "FLAIR").unlink()
    done = run("check", site_file, "--study", study)
    assert "In study trial: train on 2 cases of 2 patients, validate on 1 case of 1 patient." in done.stdout
    assert "No training (TOO_FEW_PATIENTS): here (2 patients behind a figure, at least 5 needed)" in done.stdout
    assert "No figure of validation patients (TOO_FEW_PATIENTS): here (1 patients behind a figure" in done.stdout
    assert done.returncode == 2
    assert "nothing would come of study trial here: 2 patients behind a figure, at least 5 needed" in done.stderr
    document = json.loads(run("check", site_file, "--study", study, "--json").stdout)
    assert len(document["split"]["training"]) == 2
    assert document["patients"] == {"training": 2, "validation": 1}
    assert document["forecast"]["floor"] == 5
    assert [(one["step"], one["rounds"], one["metrics"]) for one in document["forecast"]["withheld"]] == [
        ("training", [], []),
        ("validation", [], []),
    ]


def test_check_counts_patients_as_the_gateway_does(site, site_file):
    site_file.write_text(site_file.read_text() + "policy: {min_patients: 2}\n")
    study = site_file.with_name("study.yaml")
    study.write_text(
        "name: trial\ninputs: {contrasts: [T1w]}\nmin_patients: 1\ntraining: {steps_per_round: 1, batch_size: 1}\n"
    )
    done = run("check", site_file, "--study", study)
    assert "No training (TOO_FEW_PATIENTS): here (1 patients behind a figure, at least 2 needed)" in done.stdout
    study.write_text("name: trial\ninputs: {contrasts: [T1w]}\nmin_patients: 1\n")
    done = run("check", site_file, "--study", study)
    assert done.returncode == 0
    assert "No training" not in done.stdout


BAD_FILES = {
    "not YAML": ("name: [here\n", "not valid YAML"),
    "no mapping": ("- here\n", "expected `key: value` lines at the top, found a list"),
    "unknown key": (
        "name: here\ndata: bids\nstate: state\nmaskz: lesions\n",
        "maskz: unknown key; did you mean masks?",
    ),
    "wrong type": (
        "name: here\ndata: bids\nstate: state\npolicy: {min_patients: many}\n",
        "policy.min_patients: found 'many'; expected a whole number",
    ),
    "missing key": ("name: here\nstate: state\n", "data: required, but not there"),
    "out of range": (
        "name: here\ndata: bids\nstate: state\npolicy: {min_patients: 0}\n",
        "policy.min_patients: found 0; expected 1 or more",
    ),
    "missing folder": ("name: here\ndata: nowhere\nstate: state\n", "no such folder; correct `data:`"),
    "no BIDS": ("name: here\ndata: empty\nstate: state\n", "not a BIDS folder"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_site_file_is_one_line_and_exit_2(site_file, kind):
    content, expected = BAD_FILES[kind]
    site_file.with_name("empty").mkdir()
    site_file.write_text(content)
    for arguments in (("check", site_file), ("check", site_file, "--json")):
        done = run(*arguments)
        assert done.returncode == 2
        assert done.stdout == ""
        assert len(done.stderr.splitlines()) == 1
        assert expected in done.stderr


def test_two_faults_are_two_lines(site_file):
    site_file.write_text("name: here\ndata: bids\nstate: state\na: 1\nb: 2\n")
    assert len(run("check", site_file).stderr.splitlines()) == 2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["check", "nowhere.yaml"], "nowhere.yaml: no such file"),
        (["check"], "Missing argument 'SITE.yaml'"),
        (["chekc"], "No such command 'chekc'"),
        (["check", "a.yaml", "--jsn"], "No such option: --jsn; did you mean one of --jobs, --json; see "),
        (["chek"], "No such command 'chek'; did you mean 'check'; see "),
        (["check", "a.yaml", "--workers", "many"], "'--workers': 'many' is no whole number; see "),
        (["check", "a.yaml", "--workers", "0"], "'--workers': 0; expected 1 to 64; see "),
        (["ledger", "a.yaml", "--last", "0"], "'--last': 0; expected 1 or more; see "),
    ],
)
def test_wrong_command_line_is_one_line_and_exit_2(arguments, expected):
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert expected in done.stderr


@pytest.mark.slow
def test_help_imports_nothing_heavy():
    code = (
        "import sys, msfl_client.cli.main\n"
        "print(sorted({'torch', 'monai', 'flwr', 'nibabel', 'scipy', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_interrupt_is_one_line_and_exit_130(site_file, tmp_path):
    reads, goes_on = tmp_path / "reads", tmp_path / "goes-on"
    held = (
        "import pathlib, sys, time\n"
        "from msfl_client.imaging import volumes\n"
        "from msfl_client.cli.main import main\n"
        "goes_on, reads, content = pathlib.Path(sys.argv.pop()), pathlib.Path(sys.argv.pop()), volumes._content\n"
        "def read(path):\n"
        "    reads.touch()\n"
        "    while not goes_on.exists():\n"
        "        time.sleep(0.05)\n"
        "    return content(path)\n"
        "volumes._content = read\n"
        "main()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", held, "check", str(site_file), str(reads), str(goes_on)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=ENVIRONMENT,
        preexec_fn=take_interrupts,
    )
    while not reads.exists():
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    goes_on.touch()
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err.decode().splitlines()) == (130, b"", ["interrupted"])


def test_a_setting_without_effect_is_said_on_stderr_and_in_the_document(site_file):
    site_file.write_text(site_file.read_text() + "device: cpu\ngpu_memory_fraction: 0.5\n")
    study = site_file.with_name("study.yaml")
    study.write_text("name: pilot\nharmonization: {covariates: [age]}\n")
    lines = [
        "gpu_memory_fraction: 0.5 has no effect: on cpu there is no GPU",
        "harmonization.covariates: ('age',) has no effect: harmonization.method is none",
    ]
    done = run("check", site_file, "--study", study, "--json")
    assert done.stderr.splitlines()[:2] == [f"warning: {line}" for line in lines]
    assert json.loads(done.stdout)["warnings"] == lines


def test_patients_that_are_named_are_looked_at_alone(site, site_file):
    site.image("sub-01", "FLAIR").write_text("no image")
    study = site_file.with_name("study.yaml")
    study.write_text("name: trial\n")
    done = run("check", site_file, "--study", study, "--subject", "02")
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 of 1 cases usable." in done.stdout
    assert "sub-01" not in done.stdout
    assert "In study trial" not in done.stdout
    assert "what a study makes of the site, and whether others hold the same images, is said" in done.stdout
    document = json.loads(run("check", site_file, "--subject", "02", "--subject", "sub-03", "--json").stdout)
    assert [case["key"] for case in document["cases"]] == ["sub-02", "sub-03"]
    assert document["subjects"] == ["sub-02", "sub-03"]
    bad = run("check", site_file, "--subject", "01")
    assert (bad.returncode, bad.stderr) == (
        2,
        f"{site_file}: the only case cannot be used; the fixes are given above\n",
    )
    wrong = run("check", site_file, "--subject", "1")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == "site here: no such patient: sub-1; did you mean sub-01?\n"
    assert run("check", site_file, "--subject", "01", "--connection").returncode == 2
