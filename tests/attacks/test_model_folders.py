"""A stranger's model folders: cards that lie, weights that exhaust, and signatures that do not hold."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from msfl_client.cli.main import app as client_app
from msfl_common.config.study import Rounds, StudyConfig, Training
from msfl_common.errors import InputError, ModelFolderError
from msfl_common.feature_models import first_state
from msfl_common.models.model_folder import Provenance, load_model, save_model
from msfl_common.models.model_signature import ModelSigner, check_origin, fingerprint_of
from msfl_common.models.starting_weights import starting_weights
from msfl_common.networks.registry import UNet
from msfl_common.trust.kit import fingerprint
from msfl_server.study.certificates import issue_server_certificate, make_authority
from msfl_server.study.folder import init_study
from msfl_server.study.model_signer import model_signer
from msfl_server.study.server_config import ServerConfig
from tests.attacks.file_mutations import HOSTILE_TEXT, megabytes, reference_of
from tests.attacks.request_mutations import studies
from tests.feature_models import make_settings

STUDY = StudyConfig(name="pilot", network=UNet(channels=(2, 4)), training=Training(patch_voxels=8), rounds=Rounds())


@pytest.fixture(scope="module")
def authorities() -> list[tuple[ModelSigner, str]]:
    """The study's authority with its server, and a stranger's."""
    made = []
    for name in ("pilot", "other"):
        authority = make_authority(name)
        server = issue_server_certificate(authority, ("localhost",))
        signer = ModelSigner(server.key, server.certificate_pem, authority.certificate_pem)
        made.append((signer, fingerprint(authority.certificate)))
    return made


def save(folder: Path, signer: ModelSigner | None = None, **more: Any) -> Path:
    save_model(folder, STUDY, starting_weights(STUDY), Provenance(rounds_completed=1, sites={"a": 5}), signer=signer)
    for name, value in more.items():
        edit(folder, name, value)
    return folder


def edit(folder: Path, name: str, value: Any) -> None:
    """What a stranger does who passes a folder on: change the card, and take away the list of files."""
    card = json.loads((folder / "model.json").read_text())
    card[name] = value
    (folder / "model.json").write_text(json.dumps(card))
    (folder / "signature.json").unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("threshold", float("nan")),
        ("threshold", 1.01),
        ("threshold", -0.1),
        ("notice", "Approved for clinical use."),
        ("labels", {"0": "background", "1": HOSTILE_TEXT}),
        ("labels", {"0": "lesion", "1": "background"}),
        ("normalisation", "none"),
        ("weights_sha256", "x" * 10),
        ("versions", {"msfl": HOSTILE_TEXT}),
        ("versions", {f"p{number}": "1" for number in range(1000)}),
        ("provenance", {"rounds_completed": 10**30, "sites": {}}),
        ("provenance", {"rounds_completed": 1, "sites": {HOSTILE_TEXT: 5}}),
        ("reliability", {"groups": [[[0.5, 5, 6]]]}),
        ("reliability", {"groups": [[[0.5, 10**40, 0]]]}),
        ("reliability", {"groups": []}),
        ("harmonization", "../../x"),
    ],
)
def test_a_card_that_lies_is_refused(tmp_path: Path, name: str, value: Any) -> None:
    folder = save(tmp_path / "m", **{name: value})
    with pytest.raises(ModelFolderError, match="not a model card of this version") as caught:
        load_model(folder)
    assert str(caught.value).isprintable()


def test_a_huge_architecture_is_refused_before_it_is_built(tmp_path: Path) -> None:
    folder, before = save(tmp_path / "m"), megabytes()
    study = STUDY.model_copy(update={"network": UNet(channels=(1024,) * 6, residual_units=4)})
    study = study.model_copy(update={"training": Training(patch_voxels=64)})
    edit(folder, "study", study.model_dump(mode="json"))
    with pytest.raises(ModelFolderError, match="at most 100,000,000 parameters"):
        load_model(folder)
    assert megabytes() - before < 150


def test_weights_of_another_architecture_are_not_read(tmp_path: Path) -> None:
    folder, before = save(tmp_path / "m"), megabytes()
    edit(folder, "study", STUDY.model_copy(update={"network": UNet(channels=(8, 64))}).model_dump(mode="json"))
    with (folder / "model.safetensors").open("ab") as stream:
        stream.truncate(2**36)  # sparse: 64 GB to whom reads it
    with pytest.raises(ModelFolderError, match=r"expected at most \d+ bytes, found more"):
        load_model(folder)
    assert megabytes() - before < 150


@pytest.mark.parametrize("shape", [[2**40], [-1], ["x"], None, [2**63, 2**63]])
def test_a_header_that_names_terabytes_is_refused(tmp_path: Path, shape: Any) -> None:
    folder = save(tmp_path / "m")
    content = (folder / "model.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header[sorted(set(header) - {"__metadata__"})[0]]["shape"] = shape
    text = json.dumps(header).encode()
    forged = len(text).to_bytes(8, "little") + text + content[8 + length :]
    (folder / "model.safetensors").write_bytes(forged)
    edit(folder, "weights_sha256", hashlib.sha256(forged).hexdigest())
    with pytest.raises(ModelFolderError, match="does not fit the architecture"):
        load_model(folder)


def test_a_header_longer_than_the_file_is_refused(tmp_path: Path) -> None:
    folder = save(tmp_path / "m")
    forged = (2**62).to_bytes(8, "little") + (folder / "model.safetensors").read_bytes()[8:]
    (folder / "model.safetensors").write_bytes(forged)
    edit(folder, "weights_sha256", hashlib.sha256(forged).hexdigest())
    with pytest.raises(ModelFolderError, match="expected a safetensors file"):
        load_model(folder)


def test_a_signed_model_says_by_whom(tmp_path: Path, authorities: list[tuple[ModelSigner, str]]) -> None:
    (signer, known), (_, other) = authorities
    folder = save(tmp_path / "m", signer)
    assert known in check_origin(folder).sentence
    assert check_origin(folder, known).is_known
    load_model(folder)
    with pytest.raises(ModelFolderError, match=f"was signed for the authority {known}; expected {other}"):
        check_origin(folder, other)


def test_a_studys_server_signs_with_the_key_that_its_kits_vouch_for(tmp_path: Path) -> None:
    study = init_study(tmp_path / "study", ServerConfig(hosts=("localhost",)))
    folder = save(tmp_path / "m", model_signer(study))
    assert check_origin(folder, fingerprint_of(str(study.ca_certificate))).is_known
    study.server_key.write_text("broken")
    with pytest.raises(InputError, match="cannot sign its models"):
        model_signer(study)


def test_an_unsigned_model_says_so_and_is_refused_where_an_authority_is_asked_for(tmp_path: Path) -> None:
    folder = save(tmp_path / "m")
    assert check_origin(folder).sentence.startswith("Model not signed")
    load_model(folder)
    with pytest.raises(ModelFolderError, match="is not signed"):
        check_origin(folder, "0" * 64)
    (folder / "signature.json").unlink()  # as one of an earlier version, or one that was taken off
    assert check_origin(folder).sentence.startswith("Model not signed")
    with pytest.raises(ModelFolderError, match="is not signed"):
        check_origin(folder, "0" * 64)


@pytest.mark.parametrize("name", ["model.json", "model.safetensors", "signature.json"])
def test_a_byte_turned_in_a_signed_folder_is_found(
    tmp_path: Path, authorities: list[tuple[ModelSigner, str]], name: str
) -> None:
    folder = save(tmp_path / "m", authorities[0][0])
    content = (folder / name).read_bytes()
    at = (
        content.rindex(b'"signature": "') + 40
        if name == "signature.json"
        else content.rindex(b"1" if b"1" in content else b"0")
    )
    (folder / name).write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    with pytest.raises(ModelFolderError):
        check_origin(folder)
    with pytest.raises(ModelFolderError):
        load_model(folder)


def test_the_list_cannot_be_rewritten_to_suit_an_altered_card(
    tmp_path: Path, authorities: list[tuple[ModelSigner, str]]
) -> None:
    folder = save(tmp_path / "m", authorities[0][0])
    signature = json.loads((folder / "signature.json").read_text())
    edit(folder, "threshold", 0.9)
    signature["files"]["model.json"] = hashlib.sha256((folder / "model.json").read_bytes()).hexdigest()
    (folder / "signature.json").write_text(json.dumps(signature))
    with pytest.raises(ModelFolderError, match="the signature is not under these files"):
        load_model(folder)


def test_a_signature_of_another_model_does_not_serve(
    tmp_path: Path, authorities: list[tuple[ModelSigner, str]]
) -> None:
    one, other = save(tmp_path / "one", authorities[0][0]), save(tmp_path / "other", threshold=0.9)
    shutil.copyfile(one / "signature.json", other / "signature.json")
    with pytest.raises(ModelFolderError, match="altered or damaged"):
        load_model(other)


def test_a_strangers_certificate_under_the_studys_authority_is_refused(
    tmp_path: Path, authorities: list[tuple[ModelSigner, str]]
) -> None:
    (ours, known), (theirs, _) = authorities
    folder = save(tmp_path / "m", ModelSigner(theirs.key, theirs.certificate, ours.authority))
    with pytest.raises(ModelFolderError, match="certificates are damaged"):
        check_origin(folder, known)


def test_a_reference_slipped_into_a_signed_folder_is_refused(
    tmp_path: Path, authorities: list[tuple[ModelSigner, str]]
) -> None:
    folder = save(tmp_path / "m", authorities[0][0])
    (folder / "harmonization.json").write_text("{}")
    with pytest.raises(ModelFolderError, match="lists other files"):
        load_model(folder)


@pytest.mark.parametrize("name", ["model.json", "model.safetensors", "signature.json"])
def test_the_model_of_lesions_within_a_folder_is_signed_with_it(
    tmp_path: Path, authorities: list[tuple[ModelSigner, str]], name: str
) -> None:
    signer, folder = authorities[0][0], tmp_path / "m"
    lesions, provenance = save(tmp_path / "lesions", signer), Provenance(rounds_completed=1, sites={"a": 5})
    save_model(folder, STUDY, starting_weights(STUDY), provenance, segmentation=lesions, signer=signer)
    load_model(folder)
    with (folder / "segmentation" / name).open("ab") as stream:
        stream.write(b"\n")
    with pytest.raises(ModelFolderError, match="altered or damaged"):
        check_origin(folder)


def test_another_reference_or_model_of_lesions_under_an_unsigned_card_is_refused(tmp_path: Path) -> None:
    folder = save(tmp_path / "m")
    edit(folder, "harmonization", "0" * 16)
    (folder / "harmonization.json").write_text(reference_of(studies()[1]).model_dump_json())
    with pytest.raises(ModelFolderError, match=r"is not the one that model\.json names"):
        load_model(folder)
    edit(folder, "harmonization", None)
    edit(folder, "segmentation", "0" * 64)
    shutil.copytree(save(tmp_path / "lesions"), folder / "segmentation")
    with pytest.raises(ModelFolderError, match=r"is not the model that model\.json names"):
        load_model(folder)


def test_a_state_that_no_sums_come_to_is_not_read(tmp_path: Path) -> None:
    settings = make_settings({"kind": "lda"}, 2)
    study = StudyConfig(name="pilot", task="classification", classification=settings)
    state = first_state(settings, 0) | {"spread": np.zeros(2)}
    save_model(tmp_path / "m", study, state, Provenance(rounds_completed=1, sites={"a": 5}))
    with pytest.raises(ModelFolderError, match="spread: expected figures above 0"):
        load_model(tmp_path / "m")


def test_a_list_of_files_elsewhere_is_refused(tmp_path: Path) -> None:
    folder = save(tmp_path / "m")
    signature = json.loads((folder / "signature.json").read_text())
    signature["files"]["../../../etc/passwd"] = "0" * 64
    (folder / "signature.json").write_text(json.dumps(signature))
    with pytest.raises(ModelFolderError, match="lists other files"):
        load_model(folder)


def test_predict_says_who_vouches_and_takes_no_other_where_it_is_told(
    tmp_path: Path, site: Any, authorities: list[tuple[ModelSigner, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    command = typer.main.get_command(client_app)
    folder, known = save(tmp_path / "m", authorities[0][0]), authorities[0][1]
    arguments = ["predict", "--model", str(folder), "--input", str(site.root), "--output", str(tmp_path / "out")]
    with pytest.raises(ModelFolderError, match="expected 0000"):
        command.main([*arguments, "--authority", "0" * 64], standalone_mode=False)
    for wrong in (str(tmp_path), known[:-1]):
        with pytest.raises(InputError, match="expected a certificate"):
            command.main([*arguments, "--authority", wrong], standalone_mode=False)
    assert not (tmp_path / "out").exists()
    (tmp_path / "ca.crt").write_bytes(authorities[0][0].authority)
    assert fingerprint_of(":".join(re.findall("..", known.upper()))) == fingerprint_of(str(tmp_path)) == known
    command.main([*arguments, "--authority", str(tmp_path / "ca.crt"), "--json"], standalone_mode=False)
    told = capsys.readouterr()
    assert known in told.err
    assert json.loads(told.out)
    assert known in json.loads((tmp_path / "out" / "dataset_description.json").read_text())["ModelOrigin"]


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999", "9" * 5000, "[" * 50_000, '{"a": 1, "a": 2}'])
def test_a_card_of_odd_json_is_refused(tmp_path: Path, value: str) -> None:
    folder = save(tmp_path / "m")
    card = (folder / "model.json").read_text().replace('"threshold": 0.3', f'"threshold": {value}')
    (folder / "model.json").write_text(card)
    (folder / "signature.json").unlink()
    with pytest.raises(ModelFolderError, match="not a model card"):
        load_model(folder)
