"""What a study with differential privacy would spend on a site's patients, and what was spent before."""

from __future__ import annotations

from msfl_common.config.site import SiteConfig
from msfl_common.config.study import StudyConfig


def privacy_of(site: SiteConfig, study: StudyConfig | None) -> list[str]:
    """The planned epsilon of a study, and what the site has spent; none without differential privacy."""
    if study is None or study.differential_privacy is None:
        return []
    from msfl_client.privacy.budget import spent_lines
    from msfl_common.privacy_accounting import privacy_lines

    told = [f"Differential privacy: {text}." for _, text in privacy_lines(study)]
    return [*told, *spent_lines(site.state, site.policy.max_epsilon)]
