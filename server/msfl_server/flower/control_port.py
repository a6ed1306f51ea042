"""What the coordinator's processes say to their own SuperLink beside Flower's calls."""

from __future__ import annotations

SECRET_HEADER = "x-msfl-control"  # the study's secret, which opens the control port
ASKED_HEADER = "x-msfl-asked"  # with requests to sites: bytes and objects that an answer may have
REFUSED = "/msfl/refused/"  # and a reply's id: whether it was larger than that
