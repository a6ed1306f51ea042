"""Reference tables from the code's own: error codes, metrics, features."""

from __future__ import annotations

import math

from msfl_common.config.bids_suffixes import SUFFIXES
from msfl_common.config.feature_catalogue import FEATURES, REGIONS, feature_prefix
from msfl_common.config.parcellation import SHARE
from msfl_common.config.radiomics_catalogue import RADIOMICS_FEATURES
from msfl_common.errors import SENTENCES, SENTENCES_AT_SITE, Code
from msfl_common.metrics.lesion_classes import CLASS_METRICS
from msfl_common.metrics.metric import Metric
from msfl_common.metrics.registry import TASK_METRICS
from settings_reference import cell


def codes_table() -> str:
    """What each code means, as it is said to the coordinator and at the site."""
    lines = ["| code | what the coordinator reads | what the site reads |", "|---|---|---|"]
    for code in Code:
        link = f"[`{code.value}`](#{code.value.lower().replace('_', '-')})"
        at_site = "the same" if SENTENCES_AT_SITE[code] == SENTENCES[code] else cell(SENTENCES_AT_SITE[code])
        lines.append(f"| {link} | {cell(SENTENCES[code])} | {at_site} |")
    return "\n".join(lines)


def metrics_page() -> str:
    """Every metric by task."""
    lines = [
        "# Metrics",
        "\nWhat sites measure and `summary.json`, report and MLflow show. How they are pooled, and their intervals:",
        "[Evaluation](../explanation/evaluation.md).",
    ]
    of_classes: dict[str, Metric] = {name: one for metrics in CLASS_METRICS.values() for name, one in metrics.items()}
    for title, metrics in {**TASK_METRICS, "Classes of lesions (`inputs.lesion_classes`)": of_classes}.items():
        lines += [f"\n## {title}\n", "| key | metric | unit | range | better |", "|---|---|---|---|---|"]
        for name, metric in metrics.items():
            better = "" if metric.higher_is_better is None else "higher" if metric.higher_is_better else "lower"
            lines.append(
                f"| `{name}` | {cell(metric.title)} | {metric.unit} | {_range(metric.lower, metric.upper)} | {better} |"
            )
    return "\n".join(lines) + "\n"


def features_page() -> str:
    """Every feature of a case."""
    lines = [
        "# Features",
        "\nWhat `msfl-client features` measures of a case, in the order of `features.tsv`; names that",
        "`classification.features` and `harmonization.features` take. Volumes are those of the patient's own head.",
        "Those that are harmonized by default are so with `harmonization: {method: combat}` and no list of features.",
        "A table with a value that its feature cannot have is refused; a case that is measured so is left out.\n",
        "| feature | unit | what it is | can be | harmonized by default |",
        "|---|---|---|---|---|",
    ]
    for name, feature in FEATURES.items():
        text, harmonized = cell(feature.description), "yes" if feature.harmonized else ""
        lines.append(f"| `{name}` | {feature.unit} | {text} | {feature.plausible} | {harmonized} |")
    lines += [
        "\n## Means of quantities\n",
        "Of each quantity among a study's `inputs.contrasts`, `QUANTITY_REGION`, such as `fa_left_thalamus`.\n",
        "| quantity | begins with | unit | what it is | can be |",
        "|---|---|---|---|---|",
    ]
    for suffix, about in SUFFIXES.items():
        if about.is_quantity:
            lines.append(
                f"| {suffix} | `{feature_prefix(suffix)}_` | {about.unit} | {about.title} | 0 to {about.high:g} |"
            )
    lines += ["\n| region | what it is |", "|---|---|", *(f"| `{name}` | {words} |" for name, words in REGIONS.items())]
    lines += [
        "\n## Regions of the sites' own\n",
        "With `inputs.parcellation`: `CONTRAST_roi_REGION`, such as `fa_roi_1`: the mean over a region of the sites'",
        "own label images ([own inputs](../how-to/own-inputs.md)). Of a quantity it is in its unit, of another",
        "contrast a share of the",
        f"brain's median, {SHARE}.\n",
        "\n## Radiomics\n",
        "With `inputs.radiomics: true`: `REGION_shape_MEASURE`, such as `lesion_shape_sphericity`, and",
        "`CONTRAST_REGION_FAMILY_MEASURE`, such as `flair_lesion_glcm3d_joint_entropy`. Regions are `lesion`, `wm`",
        "(normal-appearing white matter; its shape is that of all white matter) and `gm`. Definitions are those of the",
        "Image Biomarker Standardisation Initiative. Those of lesions are of cases with lesions, and not harmonized by",
        "default.\n",
        "| feature | unit | what it is | can be |",
        "|---|---|---|---|",
    ]
    for name, feature in RADIOMICS_FEATURES.items():
        lines.append(f"| `{name}` | {feature.unit} | {cell(feature.description)} | {feature.plausible} |")
    return "\n".join(lines) + "\n"


def _range(lower: float, upper: float) -> str:
    return f"{_end(lower)} to {_end(upper)}"


def _end(value: float) -> str:
    return f"{value:g}" if math.isfinite(value) else "∞" if value > 0 else "-∞"
