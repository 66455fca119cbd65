"""The tables of the quality page, as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from ecgdiff.evaluation.distributions import PERCENT
from ecgdiff.evaluation.summary import grid

__all__ = ["markdown", "verdict"]

NAMES = {
    "total_variance": "total variance on fold 9",
    "spread": "spread of draws",
    "losses_below": "loss below that of the prior compared",
}
SHOWN = (10, 50, 90)
SETS = {"draws": "draws", "fold9": "fold 9"}

Document = Mapping[str, Any]


def verdict(passed: bool) -> str:
    """The word for the result of a check."""
    return "passed" if passed else "NOT passed"


def markdown(document: Document) -> str:
    """Writes all tables.

    Arguments:
        document: The numbers, see :func:`ecgdiff.evaluation.quality_summary.summarize`.
    """
    counts, settings = document["records"], document["settings"]
    head = [
        f"# Quality of the prior `{document['prior']['name']}`",
        "",
        f"`{document['command']}`",
        "",
        f"Weights {document['prior']['sha256'][:12]}, {settings['draws']} draws without any "
        f"observation ({settings['steps']} calls each, seed {settings['seed']}), "
        f"{counts['fold9']} records of fold 9 (not trained on), {counts['training']} training "
        f"records for losses, {counts['training_searched']} searched.",
        "",
    ]
    parts = (_acceptance, _spread, _losses, _frechet, _rhythm, _amplitudes, _spectra, _nearest)
    return "\n".join(head + [line for part in parts for line in [*part(document), ""]])


def _acceptance(document: Document) -> list[str]:
    checks = document["acceptance"]
    rows = checks["total_variance"]["rows"]
    judged = [[NAMES[k], verdict(checks[k]["passed"])] for k in NAMES if k in checks]
    limits = [f"{100 * r['limits']['total']:g} / {100 * r['limits']['slope']:g} %" for r in rows]
    return [
        f"## Acceptance: {verdict(checks['passed'])}",
        "",
        *grid(["check", "result"], judged),
        "",
        *_cautions(document),
        "A perfect denoiser has 1 in both rows; ± is the standard error over records.",
        "",
        *grid(
            ["sigma", *(f"{r['sigma']:.3g}" for r in rows)],
            [
                ["(var D + MSE) / var x", *(_with_error(r, "total") for r in rows)],
                ["cov(D, x) / var D", *(_with_error(r, "slope") for r in rows)],
                ["limits", *limits],
                ["result", *(verdict(r["passed"]) for r in rows)],
            ],
        ),
    ]


def _cautions(document: Document) -> list[str]:
    """What is missing for the limits to mean what they should."""
    draws, records = document["settings"]["draws"], document["settings"]["records"]
    if draws >= 512 and records is None:
        return []
    return [
        "The limits are meant for 512 draws and all of fold 9: with fewer, chance decides.",
        "",
    ]


def _spread(document: Document) -> list[str]:
    found = document["acceptance"]["spread"]
    quantiles = zip(
        *(found[k] for k in ("quantiles", "limits", "draws_mv", "fold9_mv", "ratio")),
        found["chance"]["standard_error"],
        strict=True,
    )
    body = [
        [
            f"{100 * q:g} % (limit {100 * limit:g} %)",
            *(
                f"{x:.3f} / {y:.3f} ({100 * (r - 1):+.0f} ± {100 * e:.0f} %"
                f"{'' if abs(r - 1) <= limit else ', NO'})"
                for x, y, r, e in zip(drawn, real, ratio, error, strict=True)
            ),
        ]
        for q, limit, drawn, real, ratio, error in quantiles
    ]
    return [
        f"Standard deviation per record in mV, draws / fold 9. ±: standard error by chance; as "
        f"many real records in place of the draws would pass all limits in "
        f"{100 * found['chance']['passed']:.0f} % of cases.",
        "",
        *grid(["quantile", *document["leads"]], body),
    ]


def _losses(document: Document) -> list[str]:
    found = document["losses"]
    body = [[SETS["fold9"], *_numbers(found["fold9"])]]
    body.append(["training records", *_numbers(found["training"])])
    gaps = zip(found["gap"], found["gap_standard_error"], strict=True)
    body.append(["gap", *(f"{100 * g:+.1f} ± {100 * e:.1f} %" for g, e in gaps)])
    if found["compare"]:
        name = f"fold 9, `{document['compare']['name']}`"
        body.append([name, *_numbers(found["compare"])])
    return [
        "## Denoising loss and over-fitting",
        "",
        "`(1 + 1/sigma²) MSE` in model units. A gap (fold 9 / training - 1, ± its standard error) "
        "that grows towards small sigma is over-fitting.",
        "",
        *grid(["sigma", *(f"{b:.3g}" for b in found["bands"])], body),
    ]


def _frechet(document: Document) -> list[str]:
    found = document["frechet"]
    names = {
        "other_half": "other half of fold 9 (the floor)",
        "training": "training records",
        "draws": "draws",
        "gaussian": "draws of the Gaussian with the training covariance (what a prior must beat)",
    }
    body = [[text, f"{found[k]['mean']:.4g} ± {found[k]['sd']:.3g}"] for k, text in names.items()]
    return [
        "## Fréchet distance on the classifier's features",
        "",
        f"{found['features']} features, {found['records']} records on either side, to one half of "
        f"fold 9; mean ± standard deviation over {found['splits']} splits by patients. The "
        "distance grows as records get fewer: compare only within this table, or with tables of "
        "as many records.",
        "",
        *grid(["set", "distance"], body),
    ]


def _rhythm(document: Document) -> list[str]:
    body = []
    for name, text in SETS.items():
        found = document["rhythm"][name]
        shares = [found[k] for k in ("without_beats", "below_60", "above_100")]
        body.append(
            [
                text,
                _quantiles(found["rate_percentiles"], "{:.0f}"),
                _quantiles(found["variation_percentiles"], "{:.1f}"),
                *("-" if share is None else f"{100 * share:.1f} %" for share in shares),
            ]
        )
    head = ["", "heart rate per minute", "variation of RR, %", "no beats found", "< 60", "> 100"]
    return [
        "## Rhythm (lead II)",
        "",
        f"Quantiles {', '.join(map(str, SHOWN))} % over records; shares of those with beats.",
        "",
        *grid(head, body),
    ]


def _amplitudes(document: Document) -> list[str]:
    found = document["amplitude_mv"]
    body = [
        [text, *(_quantiles(column, "{:.2f}") for column in zip(*found[name], strict=True))]
        for name, text in SETS.items()
    ]
    return [
        "## Peak-to-peak amplitude, mV",
        "",
        f"Quantiles {', '.join(map(str, SHOWN))} % over records.",
        "",
        *grid(["", *document["leads"]], body),
    ]


def _spectra(document: Document) -> list[str]:
    found = document["spectra"]
    body = [
        ["draws", *_numbers(found["distance_db"], ".2f")],
        ["other half of fold 9", *_numbers(found["half_distance_db"], ".2f")],
    ]
    return [
        "## Log-spectral distance to one half of fold 9, dB",
        "",
        "Of spectra averaged over equally many records, 0.5-40 Hz; mean over the same splits.",
        "",
        *grid(["", *document["leads"]], body),
    ]


def _nearest(document: Document) -> list[str]:
    found = document["nearest"]
    body = [
        [
            text,
            _quantiles(found["distance_mv_percentiles"][name], "{:.3f}"),
            _quantiles(found["relative_percentiles"][name], "{:.2f}"),
            f"{found['relative'][name][0]:.2f}" if found["relative"][name] else "-",
            str(found["without_peaks"][name]),
        ]
        for name, text in SETS.items()
    ]
    head = ["", "RMS distance, mV", "relative to the excerpt's RMS", "smallest", "no R peak"]
    lines = [
        "## Nearest training record",
        "",
        f"{found['seconds_compared']:g} s in all leads from the first R peak, against every "
        "training record at every R peak, up to a gain of 0.8 to 1.25. A prior that copies has "
        "draws far closer than records of patients it has not seen. Quantiles "
        f"{', '.join(map(str, SHOWN))} %.",
        "",
        *grid(head, body),
    ]
    if "smallest_ratio" in found:
        closest = found["closest"][0]
        lines += [
            "",
            f"{100 * found['draws_below_1_percent_of_fold9']:.1f} % of draws are closer than the "
            "closest 1 % of fold 9 (records like those of fold 9 would give 1 %, smoother ones "
            "more). Closest: "
            f"draw {closest['draw']} and record {closest['record']}, relative distance "
            f"{closest['relative']:.2f}, {found['smallest_ratio']:.2f} times the smallest of "
            "fold 9.",
        ]
    return lines


def _with_error(row: Mapping[str, float], name: str) -> str:
    return f"{row[name]:.3f} ± {row[f'{name}_error']:.3f}"


def _quantiles(percentiles: Sequence[float], form: str) -> str:
    if not percentiles:
        return "-"
    return " / ".join(form.format(percentiles[PERCENT.index(p)]) for p in SHOWN)


def _numbers(values: Sequence[float], form: str = ".3f") -> list[str]:
    return [format(v, form) for v in values]
