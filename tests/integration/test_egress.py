"""Every byte that leaves two sites of a real study: read off the wire, and held against their ledgers."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml
from flwr.app import Message
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    PullObjectRequest,
    PullObjectResponse,
    PushObjectRequest,
)
from flwr.proto.run_pb2 import GetRunRequest
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from tests.conftest import BidsSite
from tests.installation import hooked_installation
from tests.integration import deployment as harness
from tests.integration.deployment import Deployment, deployment, wait_for
from tests.integration.recording_proxy import Call, RecordingProxy, proxy_to
from tests.kits import point_kit

from msfl_client.egress.ledger import read
from msfl_client.egress.ledger_line import Line
from msfl_client.egress.ledger_proof import Proof
from msfl_common.config.site import load_site
from msfl_common.config.study import StudyConfig, load_study
from msfl_common.messages.ledger import take_head
from msfl_common.messages.records import describe
from msfl_common.models.network import build_network, get_weights
from msfl_server.study.ledger_heads import compare
from msfl_server.study.server_config import load_server

SITES = ("site-a", "site-b")
ROUNDS = 2
MARKER = "PLANTED"

# What the sites' processes take for the name of their machine.
PLANTED_HOST = f"""
import os, platform, socket
name = "{MARKER}-host.example"
socket.gethostname = platform.node = lambda: name
socket.getfqdn = lambda *_: name
system = os.uname()
os.uname = lambda: os.uname_result((system.sysname, name, *tuple(system)[2:]))
"""

# All that a site's process says to the coordinator: POST requests of these, and no other.
ENDPOINTS = {
    "/v1/fleet/activate-node": ActivateNodeRequest,
    "/v1/fleet/deactivate-node": DeactivateNodeRequest,
    "/v1/fleet/send-node-heartbeat": SendNodeHeartbeatRequest,
    "/v1/fleet/pull-messages": PullMessagesRequest,
    "/v1/fleet/pull-object": PullObjectRequest,
    "/v1/fleet/confirm-message-received": ConfirmMessageReceivedRequest,
    "/v1/fleet/get-run": GetRunRequest,
    "/v1/fleet/push-messages": PushMessagesRequest,
    "/v1/fleet/push-object": PushObjectRequest,
}
# With each goes: the address, the client's version, a signature of the time by the site's key; nothing of the machine.
HEADERS = {
    "host": r"localhost:\d+",
    "accept": "application/protobuf",
    "accept-encoding": "identity",
    "connection": "keep-alive",
    "user-agent": r"python-httpx/[\d.]+",
    "content-type": "application/protobuf",
    "content-length": r"\d+",
    "flwr-public-key": r"[A-Za-z0-9+/=]+",
    "flwr-timestamp": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\+00:00",
    "flwr-signature": r"[A-Za-z0-9+/=]+",
    "flwr-package-name": "flwr",
    "flwr-package-version": r"1\.41\.0",
    "flwr-component-name": "SuperNode",
}

pytestmark = pytest.mark.timeout(400)


@dataclass(frozen=True)
class Recorded:
    """A finished study, and the proxy that each site went through."""

    made: Deployment
    proxies: dict[str, RecordingProxy]

    def calls(self, name: str) -> list[Call]:
        return list(self.proxies[name].calls)

    def ledger(self, name: str) -> list[Line]:
        return list(read(self.made.site(name) / "state" / "ledger.jsonl"))


def plant(bids: BidsSite) -> None:
    """Write markers wherever a hospital's data may name a patient."""
    for path in [*bids.root.rglob("*.nii.gz")]:
        image = nib.load(path)
        image.header["descrip"] = f"{MARKER}-descrip"
        image.header["aux_file"] = f"{MARKER}-aux"
        image.header["intent_name"] = f"{MARKER}-int"
        extension = nib.nifti1.Nifti1Extension("comment", f"{MARKER}-extension".encode())
        image.header.extensions.append(extension)
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header), path)
        sidecar = {
            "PatientName": f"{MARKER}^Anna",
            "PatientBirthDate": "19701231",
            "InstitutionName": f"{MARKER} Hospital",
        }
        path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps(sidecar))
    subjects = sorted(folder.name for folder in bids.root.glob("sub-*"))
    rows = "".join(f"{subject}\t{40 + number}\t{MARKER}-Street 1\n" for number, subject in enumerate(subjects))
    (bids.root / "participants.tsv").write_text(f"participant_id\tage\taddress\n{rows}")
    (bids.root / "dataset_description.json").write_text(
        json.dumps({"Name": f"{MARKER} cohort", "BIDSVersion": "1.8.0"})
    )
    (bids.root / f"{MARKER}-notes.txt").write_text(f"{MARKER} notes")
    damaged = bids.image(f"sub-{MARKER}damaged", "FLAIR")
    damaged.write_bytes(gzip.compress(f"{MARKER} is no image".encode()))


@pytest.fixture(scope="module")
def recorded(tiny: StudyConfig, tmp_path_factory: pytest.TempPathFactory, ready_store: Path) -> Iterator[Recorded]:
    """A study of two rounds between two sites full of markers; all has ended."""
    base = tmp_path_factory.mktemp("egress")
    data = {}
    for name in SITES:
        bids = BidsSite(base / f"{MARKER}-data-{name}")
        bids.root.mkdir()
        for number in range(4):
            bids.add(f"sub-{MARKER}{name[-1]}{number}", f"ses-{MARKER}")
        bids.add(f"sub-{MARKER}damaged")
        plant(bids)
        data[name] = bids.root
    rounds = tiny.rounds.model_copy(update={"num_rounds": ROUNDS, "quorum": 2, "patience_s": 60.0})
    study = tiny.model_copy(update={"name": "watched", "rounds": rounds})
    with deployment(base / "federation", study, data, store=ready_store) as made:
        port = load_server(made.study.server_file).port
        with proxy_to(port, made.study.root / "pki") as first, proxy_to(port, made.study.root / "pki") as second:
            proxies = dict(zip(SITES, (first, second), strict=True))
            for name, proxy in proxies.items():
                file = made.site(name) / "site.yaml"
                settings = yaml.safe_load(file.read_text())
                settings["state"] = f"{MARKER}-home/state"
                settings["policy"]["min_patients"] = 1 if name == SITES[0] else 2  # site-b's validation is refused
                file.write_text(yaml.safe_dump(settings))
                (made.site(name) / f"{MARKER}-home").mkdir()
                point_kit(file, made.study.ca_key, proxy.address)
                shutil.rmtree(made.site(name) / "state")
                (made.site(name) / "state").symlink_to(f"{MARKER}-home/state")
            made.bin |= dict.fromkeys(SITES, hooked_installation(base / "planted", PLANTED_HOST))
            with pytest.MonkeyPatch.context() as patch:
                for variable in ("USER", "LOGNAME", "USERNAME", "HOSTNAME", "EMAIL", "FLWR_HOME"):
                    patch.setitem(harness.ENVIRONMENT, variable, f"{MARKER}-{variable.lower()}")
                made.start_sites(*SITES)
            made.start_server()
            assert made.wait_for_end() == 0, made.logs()
            for name in SITES:
                made.stop(name)
        yield Recorded(made, proxies)


def pushed(calls: list[Call]) -> list[Message]:
    """The messages that left, put together from what was recorded."""
    objects: dict[str, bytes] = {}
    roots = []
    for call in calls:
        if call.path == "/v1/fleet/push-object":
            request = PushObjectRequest.FromString(call.body)
            objects[request.object_id] = request.object_content
        elif (
            call.path == "/v1/fleet/pull-object" and call.status == 200
        ):  # what the server has from itself is not sent to it again
            objects[PullObjectRequest.FromString(call.body).object_id] = PullObjectResponse.FromString(
                call.answer
            ).object_content
        elif call.path == "/v1/fleet/push-messages":
            request_of = PushMessagesRequest.FromString(call.body)
            assert len(request_of.messages_list) == len(request_of.message_object_trees) == 1
            roots.append(request_of.message_object_trees[0])
    assert all(hashlib.sha256(content).hexdigest() == name for name, content in objects.items())
    messages = []
    for tree in roots:
        message = inflate_object_from_contents(tree.object_id, dict(objects), keep_object_contents=True)
        assert isinstance(message, Message)
        messages.append(message)
    sent = {PushObjectRequest.FromString(call.body).object_id for call in calls if call.path == "/v1/fleet/push-object"}
    named = {node.object_id for tree in roots for node in iterate_object_tree(tree)}
    assert sent <= named | set(objects), "no object that belongs to no message"
    return messages


@pytest.mark.parametrize("name", SITES)
def test_the_ledger_has_one_line_for_each_message_that_left(recorded: Recorded, name: str) -> None:
    sent = [describe(message.content) for message in pushed(recorded.calls(name))]
    lines = recorded.ledger(name)
    assert [(line.sha256, line.num_bytes) for line in lines] == [(one.sha256, one.num_bytes) for one in sent]
    assert [line.numbers for line in lines] == [one.numbers for one in sent]
    network = {
        key: list(value.shape)
        for key, value in get_weights(build_network(load_study(recorded.made.study.study_file))).items()
    }
    assert [line.arrays for line in lines] == [network if line.kind == "model_update" else {} for line in lines]
    validation = "validation_metrics" if name == SITES[0] else "refusal"
    assert [line.kind for line in lines] == ["node_facts", *["model_update", validation] * ROUNDS]


@pytest.mark.parametrize("name", SITES)
def test_the_end_of_the_ledger_goes_along_and_comes_back_countersigned(recorded: Recorded, name: str) -> None:
    sent = [message.content for message in pushed(recorded.calls(name))]
    assert [take_head(content) for content in sent] == [line.signed_head for line in recorded.ledger(name)]
    proof = Proof.of(load_site(recorded.made.site(name) / "site.yaml"))
    lines = list(proof.lines())
    assert all(line.head_sent and line.signature for line in lines)
    newest, broken = compare(recorded.made.study.ledger_heads)
    assert broken == []
    assert newest[name].head == lines[-1].signed_head
    assert proof.countersigned.newest is not None
    assert proof.countersigned.newest.number == len(lines) - 1, "the last receipt has no request to come with"


@pytest.mark.parametrize("name", SITES)
def test_nothing_else_is_hidden_in_a_request(recorded: Recorded, name: str) -> None:
    """Parsed and written again each body is the same, and its fields are accounted for."""
    for call in recorded.calls(name):
        parsed = ENDPOINTS[call.path].FromString(call.body)
        known = ENDPOINTS[call.path]()
        known.CopyFrom(parsed)
        known.DiscardUnknownFields()
        assert known.SerializeToString(deterministic=True) == call.body
        if isinstance(parsed, PushMessagesRequest):
            (head,) = parsed.messages_list
            assert not head.HasField("error")
            assert head.content.ByteSize() == 0
            assert list(parsed.clientapp_runtime_list) == [0.0]
            assert head.metadata.message_type in ("query", "train", "evaluate")
    for message in pushed(recorded.calls(name)):
        assert not message.has_error()
        for record in message.content.array_records.values():
            for array in record.values():
                assert (array.dtype, array.stype) == ("float32", "numpy.ndarray")
                assert array.numpy().shape == tuple(array.shape)


@pytest.mark.parametrize("name", SITES)
def test_only_these_endpoints_are_called_with_these_headers(recorded: Recorded, name: str) -> None:
    calls = recorded.calls(name)
    assert {call.line for call in calls} == {f"POST {path} HTTP/1.1" for path in ENDPOINTS}
    for call in calls:
        assert set(call.headers) == set(HEADERS), call.line
        for header, value in call.headers.items():
            assert re.fullmatch(HEADERS[header], value), (header, value)


def in_other_writing(text: str) -> list[bytes]:
    """A text as it may stand in bytes."""
    plain = text.encode()
    return [plain, plain.lower(), text.encode("utf-16-le"), plain.hex().encode(), gzip.compress(plain)[10:-8]]


@pytest.mark.parametrize("name", SITES)
def test_no_marker_path_host_or_account_leaves_a_site(recorded: Recorded, name: str) -> None:
    site = recorded.made.site(name)
    secrets = [MARKER, str(site), str(recorded.made.base), "19701231", f"data-{name}"]
    raw = b"".join(call.raw for call in recorded.calls(name))
    assert name.encode() in raw, "the search finds what is there"
    for secret in secrets:
        assert [form for form in in_other_writing(secret) if form in raw] == [], secret
    ours = [path for path in (site / "state").rglob("*") if path.is_file()]
    assert any(MARKER.encode() in path.read_bytes() for path in ours), "the site's own files hold the markers"


def test_no_marker_is_in_the_coordinators_folder(recorded: Recorded) -> None:
    made = recorded.made
    files = [path for path in made.study.root.rglob("*") if path.is_file()]
    files += [*made.base.glob("mlflow.db*"), made.base / "server.log"]
    names = {path.name for path in files}
    assert {"status.json", "summary.json", "ledger_heads.jsonl", "superlink.log", "run.log", "mlflow.db"} <= names
    assert not [name for name in names if name.startswith("superlink.db")], "what was in flight goes with the study"
    for path in files:
        content = path.read_bytes()
        for secret in (MARKER, "19701231", *(str(made.site(name)) for name in SITES)):
            assert [form for form in in_other_writing(secret) if form in content] == [], (path, secret)
    for name in ("summary.json", "ledger_heads.jsonl", "run.log", "mlflow.db"):
        assert any(b"site-a" in path.read_bytes() for path in files if path.name == name), (
            "the search finds what is there"
        )


@pytest.mark.parametrize("name", SITES)
def test_the_sites_own_files_are_for_its_account_alone(recorded: Recorded, name: str) -> None:
    state = recorded.made.site(name) / "state"
    assert state.stat().st_mode & 0o777 == 0o700
    assert (recorded.made.site(name) / "site.key").stat().st_mode & 0o777 == 0o600
    assert {path.name for path in state.iterdir()} >= {"cache", "ledger.jsonl", "node.log", "status.json"}
    assert os.access(state, os.W_OK)
    wait_for("the end", lambda: json.loads((state / "status.json").read_text())["state"] == "stopped", 5)
