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
Workers = Annotated[
    int, typer.Option("--workers", min=1, max=64, metavar="NUMBER", help="Cases at the same time; 1 to 2 GB each.")
]
HealthPort = Annotated[
    int | None,
    typer.Option(min=1, max=65_535, metavar="PORT", help="Answer gRPC health checks on this port, 127.0.0.1."),
]
