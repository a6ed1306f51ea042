"""What commands of `msfl-client` are given: the site's file, a study, what a trained model is put to use on."""

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
ModelSite = Annotated[
    Path | None,
    typer.Argument(
        metavar="SITE.yaml",
        help="The site's own file, or its folder: its data, its device, as much of its memory as it lends, and "
        "models of its approved kit's authority alone. Options replace what it says.",
    ),
]
ModelInput = Annotated[
    Path | None, typer.Option("--input", metavar="BIDS", help="Skull-stripped images or not, on any grid; tables.")
]
ModelDevice = Annotated[
    str | None,
    typer.Option("--device", metavar="DEVICE", help="auto, cpu, mps, cuda or cuda:N; without it, the site's, or auto."),
]
ModelOutput = Annotated[
    Path, typer.Option("--output", "-o", metavar="DERIVATIVES", help="BIDS derivative folder to write.")
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
