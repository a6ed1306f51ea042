"""Keys of study.yaml that earlier versions had: refused where a person writes them, read where a study was stored."""

from __future__ import annotations

from typing import Any

_PAPERS = ("resnet3d", "pretrained-resnet2d", "resnext")  # whose rates `training` once replaced unless they were others
_USUAL = {"learning_rate": 1e-3, "weight_decay": 1e-2}  # written into every stored study, whether a person wrote it


def former_keys(content: dict[str, Any]) -> list[str]:
    """A line for each key that has another name now."""
    of_network = ["model: is called network now; write `network:` for it, and `kind: unet` as the first key below it"]
    return (of_network if "model" in content else []) + [
        f"{section}.server_momentum: is now `strategy: {{kind: fedavgm, momentum: ...}}`, a section of its own; take "
        "the key out, and where it is 0 leave it at that"
        for section in ("rounds", "segmentation")
        if isinstance(content.get(section), dict) and "server_momentum" in content[section]
    ]


def renewed(content: Any) -> Any:
    """A stored study in the form of this version.

    Raises:
        ValueError: it has a momentum for each of its stages.
    """
    return _with_strategy(_with_network(content)) if isinstance(content, dict) and former_keys(content) else content


def _with_network(content: dict[str, Any]) -> dict[str, Any]:
    """`model` was the section of a U-Net, the only network that there was."""
    if "network" in content or not isinstance(content.get("model"), dict):
        return content
    network = {"kind": "unet", **content["model"]}
    return {key: value for key, value in content.items() if key != "model"} | {"network": network}


def _with_strategy(content: dict[str, Any]) -> dict[str, Any]:
    """A momentum was a key of the rounds; and rates were replaced where they equalled the usual ones."""
    if not former_keys(content):
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
    found = {value for value in momenta.values() if value}
    if len(found) > 1:
        raise ValueError("server_momentum: one of each stage is no longer read; finish the run with the version it has")
    return found.pop() if found else 0.0
