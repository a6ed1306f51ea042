"""The devices of a machine that PyTorch computes on, and their memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from msfl_common.errors import Code, RefusedError


def pick_device(device: str | Sequence[str]) -> torch.device:
    """The one device, or the first of several."""
    return pick_devices(device)[0]


def pick_devices(device: str | Sequence[str]) -> tuple[torch.device, ...]:
    """The devices that `device` of a site's file stands for; `auto` is cuda, then mps, then cpu.

    Raises:
        RefusedError: one of them is not there.
    """
    return tuple(_pick(name) for name in ([device] if isinstance(device, str) else device))


def _pick(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    device = torch.device("cuda:0" if name == "cuda" else name)
    missing_cuda = device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()
    if missing_cuda or (device.type == "mps" and not torch.backends.mps.is_available()):
        raise RefusedError(Code.NO_DEVICE, f"{name}: {_there(device.type)}")
    return device


def _there(kind: str) -> str:
    num_gpus = torch.cuda.device_count() if kind == "cuda" else 0
    what = "Apple GPU" if kind == "mps" else "NVIDIA GPU"
    return f"there are {num_gpus}, from cuda:0" if num_gpus else f"PyTorch finds no {what} here"


def cap_memory(device: torch.device, fraction: float) -> None:
    """Let this process take no more than `fraction` of a GPU's memory; going beyond is out of memory."""
    if device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(fraction, device)


def free_memory(device: torch.device) -> None:
    """Give back what PyTorch keeps for later; other processes can then have it."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
