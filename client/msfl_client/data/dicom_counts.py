"""How many slices a scanner says that it made, in the tags that makers have for it."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

_PHILIPS_SLICES, _SIEMENS_PROTOCOLS = (0x2001, 0x1018), ((0x0021, 0x1019), (0x0029, 0x1020))
# Slices of a 2D series, slabs of a 3D one, each of so many images: "Slices per slab" on the scanner's screen.
_SIEMENS_SLICES = re.compile(rb"sSliceArray\.lSize\s*=\s*(\d{1,4})\b")
_SIEMENS_IN_SLAB = re.compile(rb"sKSpace\.lImagesPerSlab\s*=\s*(\d{1,4})\b")


def num_slices_said(header: Any) -> int:
    """How many slices the scanner says that it made; 0 where it does not say."""
    said = [whole_in(header, "ImagesInAcquisition")]
    if _PHILIPS_SLICES in header:
        said.append(int(number_in(header[_PHILIPS_SLICES].value)))
    for tag in _SIEMENS_PROTOCOLS:
        protocol = header[tag].value if tag in header else b""
        text = protocol.encode("ascii", "ignore") if isinstance(protocol, str) else protocol
        if isinstance(text, bytes):
            said.append(_num_in_protocol(header, text))
    return max(said)


def _num_in_protocol(header: Any, text: bytes) -> int:
    """By Siemens' protocol, which goes with what was cut from the images of a 3D series, too, and is not of that."""
    slices, in_slab = _SIEMENS_SLICES.search(text), _SIEMENS_IN_SLAB.search(text)
    if slices is None:
        return 0
    if header.get("MRAcquisitionType") == "2D":
        return int(slices[1])
    is_cut = {"DERIVED", "MPR", "MIP", "MIN IP"} & set(map(str, header.get("ImageType") or ("DERIVED",)))
    if header.get("MRAcquisitionType") != "3D" or in_slab is None or is_cut:
        return 0
    return int(slices[1]) * int(in_slab[1])


def number_in(value: Any) -> float:
    """A header's value as a number; 0 where it is none, or none that is finite."""
    try:
        number = float(value if not isinstance(value, bytes) else value.decode().strip("\0 "))
    except (TypeError, ValueError):
        return 0.0
    return number if np.isfinite(number) else 0.0


def whole_in(header: Any, name: str) -> int:
    """A header's value by name as a whole number; 0 where it is none."""
    return int(number_in(header.get(name)))
