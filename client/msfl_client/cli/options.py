"""What commands of `msfl-client` are given: the site's file, a study, and how much of the machine they take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SitePath = Annotated[Path, typer.Argument(metavar="SITE.yaml", help="The site's own file, or its folder.")]
StudyPath = Annotated[
    Path | None,
    typer.Option("--study", metavar="STUDY.yaml", help="The study's settings; without it, those of the kit's study."),
]
Subjects = Annotated[
    list[str] | None,
    typer.Option("--subject", metavar="ID", help="This patient alone: sub-001, or 001; may be given more than once."),
]
Visits = Annotated[
    list[str] | None,
    typer.Option("--visit", metavar="ID", help="This visit alone: ses-01, or 01; may be given more than once."),
]
Workers = Annotated[
    int, typer.Option("--workers", min=1, max=64, metavar="NUMBER", help="Cases at the same time; 1 to 2 GB each.")
]
Authority = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|SHA256",
        help="Take no model but one signed for this authority: kit/ca.crt, or its SHA-256 fingerprint.",
    ),
]
HealthPort = Annotated[
    int | None,
    typer.Option(min=1, max=65_535, metavar="PORT", help="Answer gRPC health checks on this port, 127.0.0.1."),
]
