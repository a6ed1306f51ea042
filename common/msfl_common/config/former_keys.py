"""Keys of study.yaml that earlier versions had: refused where a person writes them, read where a study was stored."""

from __future__ import annotations

from typing import Any


def former_keys(content: dict[str, Any]) -> list[str]:
    """A line for each key that has another name now."""
    return (
        ["model: is called network now; write `network:` for it, and `kind: unet` as the first key below it"]
        if "model" in content
        else []
    )


def renewed(content: Any) -> Any:
    """A stored study in the form of this version."""
    return _with_network(content) if isinstance(content, dict) else content


def _with_network(content: dict[str, Any]) -> dict[str, Any]:
    """`model` was the section of a U-Net, the only network that there was."""
    if "network" in content or not isinstance(content.get("model"), dict):
        return content
    network = {"kind": "unet", **content["model"]}
    return {key: value for key, value in content.items() if key != "model"} | {"network": network}
