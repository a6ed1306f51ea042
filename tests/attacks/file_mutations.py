"""Model folders, YAML files and references by a stranger, and what is wrong with how they are read."""

from __future__ import annotations

import json
import resource
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from msfl_client.segmentation.lesion_model import load_lesion_model
from msfl_common.config.site import load_site
from msfl_common.config.study import StudyConfig, load_study
from msfl_common.errors import InputError
from msfl_common.harmonization import Reference
from msfl_common.messages.harmonization import unpack_reference
from msfl_common.models.model_folder import Provenance, load_model, read_reference, save_model
from msfl_common.models.starting_weights import starting_weights
from msfl_server.study.server_config import load_server
from tests.attacks.mutations import mutated_bytes, mutated_json, mutated_yaml
from tests.attacks.request_mutations import requests_of, studies

EXAMPLES = Path(__file__).parents[2] / "site_configs"


def make_models(folder: Path) -> list[Path]:
    """Honest model folders, one for each kind of model."""
    made = []
    for number, study in enumerate(studies()):
        path = folder / f"model-{number}"
        reference = None
        if study.harmonization.method != "none":
            reference = reference_of(study)
        provenance = Provenance(rounds_completed=1, sites={"a": 5})
        save_model(path, study, starting_weights(study), provenance, reference)
        made.append(path)
    return made


def reference_of(study: StudyConfig) -> Reference:
    """What an honest coordinator sends as a harmonization's reference."""
    return next(unpack_reference(content) for kind, content in requests_of(study) if kind == "query.reference")


def mutate_model(rng: np.random.Generator, honest: Path, target: Path) -> None:
    """A copy of a model folder in which a stranger changed something; the list of files is gone, or kept."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(honest, target)
    if rng.random() < 0.8:
        (target / "signature.json").unlink()
    names = [path.name for path in target.iterdir()]
    for _ in range(int(rng.integers(1, 3))):
        path = target / names[rng.integers(len(names))]
        match int(rng.integers(8)):
            case 0 if path.is_file():
                path.unlink()
            case 1 if path.is_file():
                path.unlink()
                path.mkdir()
            case 2 if path.suffix == ".safetensors" and path.is_file():
                path.write_bytes(_strange_header(rng, path.read_bytes()))
            case _ if path.is_file() and path.suffix == ".json":
                try:
                    tree = json.loads(path.read_bytes())
                except ValueError:
                    tree = {}
                path.write_bytes(mutated_json(rng, tree))
            case _ if path.is_file():
                path.write_bytes(mutated_bytes(rng, path.read_bytes()))
            case _:
                pass
    _agree(rng, target)


def _agree(rng: np.random.Generator, target: Path) -> None:
    """A stranger who knows the format puts the digest of the changed weights into the card."""
    import hashlib

    card, weights = target / "model.json", target / "model.safetensors"
    if rng.random() < 0.7 and card.is_file() and weights.is_file():
        try:
            content = json.loads(card.read_bytes())
            content["weights_sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
            card.write_text(json.dumps(content))
        except (ValueError, TypeError, RecursionError):
            return


def _strange_header(rng: np.random.Generator, content: bytes) -> bytes:
    length = int.from_bytes(content[:8], "little")
    try:
        header = json.loads(content[8 : 8 + length])
    except (ValueError, RecursionError):
        return content
    text = mutated_json(rng, header)
    size = len(text) if rng.random() < 0.7 else int(rng.integers(2**62))
    return size.to_bytes(8, "little") + text + content[8 + length :]


def yaml_trees() -> list[tuple[Callable[[Path], object], dict[str, Any]]]:
    """Who reads which settings, and honest ones."""
    import yaml

    def example(name: str) -> dict[str, Any]:
        content: dict[str, Any] = yaml.safe_load((EXAMPLES / name).read_text())
        return content

    study: dict[str, Any] = studies()[1].model_dump(mode="json")
    return [
        (load_site, example("site.example.yaml")),
        (load_study, study),
        (load_study, studies()[0].model_dump(mode="json")),
        (load_server, {"hosts": ["localhost"], "port": 9443, "mlflow": "http://127.0.0.1:5000"}),
    ]


def mutated_files(
    models: list[Path], folder: Path, num_files: int, seed: int
) -> Iterator[tuple[int, Callable[[Path], object], Path]]:
    """Changed model folders and settings, each with its number and whoever reads it; the next takes its place."""
    trees, changed, settings = yaml_trees(), folder / "changed", folder / "settings.yaml"
    for number in range(num_files):
        rng = np.random.default_rng([seed, number])
        if number % 2:
            read, tree = trees[rng.integers(len(trees))]
            settings.write_bytes(mutated_yaml(rng, tree))
            yield number, read, settings
        else:
            mutate_model(rng, models[rng.integers(len(models))], changed)
            yield number, read_model, changed
            yield number, read_reference_of, changed


def reading_fault(read: Callable[[Path], object], path: Path) -> str | None:
    """What is wrong with how a file or folder is read: anything but an answer, or one short error for people."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            read(path)
        except InputError as error:
            lines = str(error).splitlines()
            if not lines or max(map(len, lines)) > 3000 or len(lines) > 20:
                return f"{len(lines)} lines of {max(map(len, lines), default=0)} characters"
            if not str(error).replace("\n", "").isprintable():
                return f"a control character is in {lines[0][:200]!r}"
            return None
        except Exception as error:
            return f"{type(error).__name__}: {str(error)[:200]}"
    return None


def read_model(path: Path) -> object:
    """As predict and features read a model folder."""
    card, weights = load_model(path)
    if card.study.classification is None:
        load_lesion_model(path, "cpu")
    assert 0 <= card.threshold <= 1
    return weights


def read_reference_of(path: Path) -> object:
    """As `harmonize --reference` reads one."""
    return read_reference(path / "harmonization.json")


HOSTILE_TEXT = "[/nothing]\x1b[2J\x1b]0;owned\x07[red]x\u202egnp\x9b31m"


def megabytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
