"""Keys that study.yaml and site.yaml once had: refused where a person writes them, read where they were stored."""

from __future__ import annotations

from typing import Any

_PAPERS = ("resnet3d", "pretrained-resnet2d", "resnext")  # whose rates `training` once replaced unless they were others
_USUAL = {"learning_rate": 1e-3, "weight_decay": 1e-2}  # written into every stored study, whether a person wrote it


# Where a key stood, and what it is called there now.
_OF_STUDY = {"min_cases": "min_patients", "training.augmentation.contrast": "gamma"}
_OF_SITE = {"policy.min_cases": "min_patients"}


def former_keys(study: dict[str, Any]) -> list[str]:
    """A line for each key of a study that has another name now."""
    network = ["model: is called network now; write `network:` for it, and `kind: unet` as the first key below it"]
    return _former(study, _OF_STUDY) + (network if "model" in study else []) + _momenta(study)


def former_keys_of_site(site: dict[str, Any]) -> list[str]:
    """A line for each key of a site that has another name now."""
    return _former(site, _OF_SITE)


def renewed(study: Any) -> Any:
    """A stored study in the form of this version.

    Raises:
        ValueError: it has a momentum for each of its stages.
    """
    return _with_strategy(_with_network(_with_names(study, _OF_STUDY))) if isinstance(study, dict) else study


def renewed_site(site: Any) -> Any:
    """A stored site in the form of this version."""
    return _with_names(site, _OF_SITE) if isinstance(site, dict) else site


def _former(content: dict[str, Any], table: dict[str, str]) -> list[str]:
    return [f"{place}: is called {name} now; rename it" for place, name in table.items() if _is_there(content, place)]


def _with_names(content: dict[str, Any], table: dict[str, str]) -> dict[str, Any]:
    for place, name in table.items():
        if _is_there(content, place) and not _is_there(content, _beside(place, name)):  # of both, neither may win
            content = _renamed(content, place.split("."), name)
    return content


def _beside(place: str, name: str) -> str:
    """The place of another key of the same section."""
    *sections, _ = place.split(".")
    return ".".join((*sections, name))


def _renamed(content: dict[str, Any], place: list[str], name: str) -> dict[str, Any]:
    key, *below = place
    if below:
        return {**content, key: _renamed(content[key], below, name)}
    return {(name if other == key else other): value for other, value in content.items()}


def _is_there(content: Any, place: str) -> bool:
    """Whether a key is there."""
    *sections, key = place.split(".")
    for section in sections:
        content = content.get(section) if isinstance(content, dict) else None
    return isinstance(content, dict) and key in content


def _momenta(study: dict[str, Any]) -> list[str]:
    return [
        f"{section}.server_momentum: is now `strategy: {{kind: fedavgm, momentum: ...}}`, a section of its own; take "
        "the key out, and where it is 0 leave it at that"
        for section in ("rounds", "segmentation")
        if _is_there(study, f"{section}.server_momentum")
    ]


def _with_network(content: dict[str, Any]) -> dict[str, Any]:
    """`model` was the section of a U-Net, the only network that there was."""
    if "network" in content or not isinstance(content.get("model"), dict):
        return content
    network = {"kind": "unet", **content["model"]}
    return {key: value for key, value in content.items() if key != "model"} | {"network": network}


def _with_strategy(content: dict[str, Any]) -> dict[str, Any]:
    """A momentum was a key of the rounds; and rates were replaced where they equalled the usual ones."""
    if not _momenta(content) or content.get("strategy") is not None:
        return content
    stages = {name: dict(content[name]) for name in ("rounds", "segmentation") if isinstance(content.get(name), dict)}
    momenta = {name: stage.pop("server_momentum", 0.0) for name, stage in stages.items()}
    changed = {**content, **stages}
    outcome = content.get("classification")
    model = outcome.get("model") if isinstance(outcome, dict) else None
    kind = model.get("kind") if isinstance(model, dict) else None
    if momentum := _only(momenta):
        changed["strategy"] = {"kind": "fedavgm", "momentum": momentum}
    if kind in _PAPERS and isinstance(content.get("training"), dict):
        own = {"weight_decay"}  # never acted
        own |= {"learning_rate"} if content["training"].get("learning_rate") == _USUAL["learning_rate"] else set()
        changed["training"] = {key: value for key, value in content["training"].items() if key not in own}
    return changed


def _only(momenta: dict[str, Any]) -> Any:
    found = [value for value in momenta.values() if value]
    if any(value != found[0] for value in found):
        raise ValueError("server_momentum: one of each stage is no longer read; finish the run with the version it has")
    return found[0] if found else 0.0
