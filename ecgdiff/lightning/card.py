"""The model card of a prior, written from its configuration so that no number is typed by hand."""

from collections.abc import Mapping, Sequence
from typing import Any

from ecgdiff.ecg.leads import LEADS_12
from ecgdiff.lightning.masks import HALF
from ecgdiff.lightning.shown import VALIDATION_SIGMA_Y
from ecgdiff.lightning.training_run import named_folds

__all__ = ["write_card"]

_LIMITS = """\
## Limits

- Research use only, not for clinical or diagnostic purposes. A draw is a plausible ECG, not a
measurement.
- PTB-XL: one country, one device family, 1989-1996. Other populations and devices are
untested.
- {rate:g} Hz and a {highpass:g} Hz high-pass: ST levels deserve care, pacing spikes and late
potentials are out of reach.
- Large-amplitude and rare ECGs are what a prior forgets first: compare the 90 % quantiles
above.
"""


def write_card(config: Mapping[str, Any]) -> str:
    """Writes the card as Markdown, with the acceptance numbers wherever they fall."""
    training, h = config["training"], config["training"]["hyperparameters"]
    rate, leads = config["sampling_rate_hz"], config["leads"]
    parts = [
        f"# Prior `{config['name']}`\n",
        f"A diffusion prior over {config['n_samples'] / rate:g} s of the complete ECG: SaShiMi "
        f"with S4D layers, preset `{h['preset']}`, objective `{config['objective']}`.\n",
        "| | |\n| --- | --- |",
        f"| data | {training['data']}, {training['records']} records of "
        f"{named_folds(training['folds'])}; {training['clipped_samples']} samples beyond "
        f"{config['clip_mv']:g} mV clipped |",
        f"| leads | {', '.join(leads)} (the other {len(LEADS_12) - len(leads)} follow) |",
        f"| units | mV; one model unit is {config['scale_mv']:g} mV, for every record and lead |",
        f"| rate, window | {rate:g} Hz, {_windows(config)} samples |",
        f"| filter | zero-phase high-pass, {config['highpass_hz']:g} Hz (half amplitude) |",
        f"| training | {_earlier(training)}{training['steps']} of {h['total_steps']} steps, "
        f"AdamW at {h['lr']:g}, {_levels(h)}, {_average(training)} |",
        *_seen(config),
        "| data license | PTB-XL (Wagner et al., 2022), CC BY 4.0 |\n",
        _loss_table(config),
        _variance_table(config["acceptance"]),
        _quantile_table(config["acceptance"], leads),
        _LIMITS.format(rate=rate, highpass=config["highpass_hz"]),
    ]
    return "\n".join(parts)


def _windows(config: Mapping[str, Any]) -> str:
    """The window, and the others that the network was trained on."""
    whole = config["n_samples"]
    others = [n for n in config["training"]["hyperparameters"].get("lengths", []) if n != whole]
    return " and ".join(map(str, [whole, *others]))


def _levels(h: Mapping[str, Any]) -> str:
    """Where the noise levels of training were."""
    if h["objective"] == "eps":
        return "levels uniform over the steps of the schedule"
    return (
        f"ln sigma ~ N({h['sigma_log_mean']:g}, {h['sigma_log_std']:g}^2) with "
        f"{h['uniform_share']:.0%} log-uniform"
    )


def _average(training: Mapping[str, Any]) -> str:
    """Which weights these are, and how they were chosen where there was a choice."""
    decay = float(training["ema_decay"])
    name = f"EMA {training['ema_decay']}" if decay else "the last weights"
    chosen = " chosen on fold 9" if len(training.get("ema_decays", ())) > 1 else ""
    return name + chosen


def _seen(config: Mapping[str, Any]) -> list[str]:
    """What the network was shown in training, if the usual mixture of patterns was replaced."""
    patterns = config["training"]["hyperparameters"].get("patterns")
    return [f"| shown | patterns {', '.join(patterns)} only |"] if patterns else []


def _earlier(training: Mapping[str, Any]) -> str:
    before = training.get("earlier")
    if not before:
        return ""
    return f"{before['steps']} steps of earlier runs (weights {before['sha256'][:12]}), then "


def _loss_table(config: Mapping[str, Any]) -> str:
    found = config["acceptance"]
    head = (
        "## Denoising loss on fold 9\n\n`(1 + 1/sigma^2) MSE` per noise level, in model units.\n"
    )
    if config.get("inpainting", False):
        half = min(HALF, config["n_samples"] // 2) / config["sampling_rate_hz"]
        head += (
            f"\nThe network is shown what was observed, with noise of {VALIDATION_SIGMA_Y:g} "
            f"model units: half of the records showed lead {config['leads'][0]}, half {half:g} s "
            "of all leads. The loss is that of lost samples. Below, nothing was shown.\n"
        )
    return "\n".join(
        [
            head,
            _row("sigma", [f"{v:.3g}" for v in found["bands"]]),
            _row("---", ["---"] * len(found["bands"])),
            _row("loss", [f"{v:.3f}" for v in found["losses_fold9"]]),
            "",
        ]
    )


def _variance_table(found: Mapping[str, Any]) -> str:
    rows = found["total_variance_fold9"]
    verdicts = [
        "yes" if max(abs(r["total"] - 1), abs(r["slope"] - 1)) <= _margin(r["sigma"]) else "NO"
        for r in rows
    ]
    return "\n".join(
        [
            "## Total-variance check on fold 9\n",
            "A perfect denoiser has `(var D + MSE) / var x = 1` and `cov(D, x) / var D = 1`; the "
            "goal is 3 % (5 % at sigma 30).\n",
            _row("sigma", [f"{r['sigma']:.3g}" for r in rows]),
            _row("---", ["---"] * len(rows)),
            _row("(var D + MSE) / var x", [f"{r['total']:.3f}" for r in rows]),
            _row("cov(D, x) / var D", [f"{r['slope']:.3f}" for r in rows]),
            _row("within the goal", verdicts),
            "",
        ]
    )


def _margin(sigma: float) -> float:
    return 0.05 if sigma > 20 else 0.03


def _quantile_table(found: Mapping[str, Any], leads: Sequence[str]) -> str:
    lines = [
        f"## Standard deviation per record, {found['draws']} unconditional draws and fold 9\n",
        "Quantiles over records in mV, draws / real; the goal is a ratio within 5 % (10 % at the "
        "90 % quantile).\n",
        _row("quantile", list(leads)),
        _row("---", ["---"] * len(leads)),
    ]
    for q, drawn, real in zip(
        found["std_quantiles"], found["std_mv_draws"], found["std_mv_fold9"], strict=True
    ):
        cells = [f"{a:.3f} / {b:.3f} ({a / b - 1:+.0%})" for a, b in zip(drawn, real, strict=True)]
        lines.append(_row(f"{q:.0%}", cells))
    return "\n".join([*lines, ""])


def _row(head: str, cells: Sequence[str]) -> str:
    return f"| {head} | " + " | ".join(cells) + " |"
