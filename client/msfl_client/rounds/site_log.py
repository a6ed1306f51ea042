"""A site's own log: the detail of what leaves as a code alone."""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path

from msfl_common.config.site import SiteConfig
from msfl_common.system.foreign_text import LOG_FORMAT, LineFormatter
from msfl_common.system.logs import log_handler


def site_log(site: SiteConfig) -> logging.Logger:
    """The site's log file, `site.log` in its state folder; nothing of it goes anywhere else."""
    return _log_at(site.state)


@cache
def _log_at(state: Path) -> logging.Logger:
    handler = log_handler(state / "site.log")
    handler.setFormatter(LineFormatter(LOG_FORMAT))
    logger = logging.Logger(f"msfl.site.{state}")
    logger.addHandler(handler)
    return logger
