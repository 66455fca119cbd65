"""Every method on real ECGs under the same budget of network calls, with the shipped prior.

For each task, method and budget the settings are chosen on some records of the validation fold, by
CRPS, among a few variants of each method with as many steps as the budget allows; the choice is
scored on other records of that fold, unless it was too much worse than the best method on the
first. A call is one evaluation of the network or one pass back through it. Finished records are
kept in ROWS and never computed again.
"""

import math
from bisect import bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ecgdiff import __version__
from ecgdiff.data.ptbxl import PTBXL
from ecgdiff.errors import EcgDiffError
from ecgdiff.evaluation.benchmark import Row, Rows, SamplerMethod, Settings
from ecgdiff.evaluation.benchmark import run as evaluate
from ecgdiff.evaluation.calibration import nominal_coverage
from ecgdiff.evaluation.estimates import estimates
from ecgdiff.evaluation.records import cases, read_list
from ecgdiff.evaluation.summary import cell, grid, summarize
from ecgdiff.evaluation.tasks import PAPER_TASKS as TASKS
from ecgdiff.evaluation.tasks import Case, Task
from ecgdiff.prior import Prior, load_prior, needed_prior
from ecgdiff.samplers import Sampler, named_sampler

__all__ = ["VARIANTS", "Setting", "figure", "run", "spec", "table"]

VARIANTS: dict[str, tuple[str, ...]] = {
    "conditional": ("", "inflation=1.0", "inflation=1.15,above=3.0"),
    "mmps": (
        "iterations=1",
        "iterations=2",
        "iterations=1,precondition=True",
        "iterations=2,precondition=True",
        "iterations=2,precondition=True,spread=1.0",
    ),
    "surrogate": ("spread=1.0", "spread=0.5", "spread=0.0"),
    "mgps": (
        "gradient_steps=1",
        "gradient_steps=2",
        "gradient_steps=2,grid=rho",
        "gradient_steps=2,grid=rho,lr=1.0",
        "gradient_steps=2,grid=rho,midpoint=0.75",
        "gradient_steps=2,lr=0.127",
        "gradient_steps=5,form=score,scale_free=False,lr=0.127",
        "gradient_steps=2,form=score,scale_free=False,lr=0.127,warm=0",
    ),
    "pgdm": ("grid=rho", "grid=uniform", "weight=released"),
    "dps": ("zeta=1.0", "zeta=0.3", "zeta=1.0,grid=rho", "zeta=2.0,grid=rho", "zeta=4.24"),
    "ddnm": ("eta=0.85", "eta=1.0", "eta=1.0,grid=rho"),
    "diffpir": ("grid=uniform", "grid=rho", "zeta=1.0,grid=rho", "lam=6.0"),
    "reddiff": ("lr=0.1", "lr=0.1,weight=1.0", "lr=0.3", "lr=1.27,weight=0.05"),
    "daps": ("ode_steps=2", "ode_steps=5", "ode_steps=2,variance=1.0"),
    "ding": ("std=square", "std=ddpm", "std=ddpm,grid=rho"),
    "mgdm": (
        "gradient_steps=2,denoising_steps=2",
        "gradient_steps=1,denoising_steps=1",
        "gradient_steps=2,denoising_steps=2,lr=0.5",
    ),
    "cadps": ("probes=1", "probes=1,grid=rho", "probes=2,grid=rho", "probe=vjp,probes=1,grid=rho"),
}
"""What is tried of each method; the steps follow from the budget.

The published settings for ECGs are among them where they are other than our defaults: learning
rates and step sizes in mV become model units of 0.236 mV. Those of MGPS (the score form; two-stage
moves for lost blocks) keep their form and rate, not their rules of more gradient steps at both
ends, which no small budget can pay.
"""

Tried = dict[str, dict[str, float]]
SCORES = ("crps", "mae_draw", "mae_mean", "coverage_90", "spread_skill", "amplitude_ratio")


@dataclass(frozen=True)
class Setting:
    """The settings of the experiment.

    Arguments:
        root: The folder of PTB-XL.
        tasks: Names of tasks, with commas, or "all".
        methods: Names of methods, with commas, or "all".
        budgets: Network calls, with commas.
        tune: How many records of `fold9_24` the settings are chosen on.
        records: How many records of `fold9_100` are scored.
        within: A method whose CRPS on the tuning records is more than this many times that of the
            best method there, for the same task and budget, is not scored.
        halve: Whether each budget after the first tries only the better half of the variants that
            a method had at the one before: successive halving, for budgets that are dear.
        draws: Draws per record.
        prior: The name or folder of a prior; by default what each method needs.
        rows: The folder of finished records.
    """

    root: str = ""
    tasks: str = "all"
    methods: str = "all"
    budgets: str = "10,30,100,300,1000"
    tune: int = 8
    records: int = 100
    within: float = math.inf
    halve: bool = False
    draws: int = 10
    prior: str = ""
    rows: str = "ecg_budget_rows"


def spec(name: str, variant: str, budget: int) -> str | None:
    """The sampler with as many steps as a budget allows, as text; None if two are too many."""

    def text(steps: int) -> str:
        return ",".join([f"{name}:steps={steps}", *filter(None, [variant])])

    affordable = bisect_right(range(2, 1001), budget, key=lambda n: _calls(named_sampler(text(n))))
    return text(affordable + 1) if affordable else None


def run(setting: Setting) -> dict[str, Any]:
    """CRPS, calibration and amplitudes against network calls, every method tuned alike."""
    if not setting.root:
        raise EcgDiffError("ecg-budget needs --root, the folder of PTB-XL 1.0.3.")
    data = PTBXL(setting.root)
    tuning = cases(data, read_list("fold9_24"))[: setting.tune]
    scored = cases(data, read_list("fold9_100"))[: setting.records]
    names = _named(setting.methods, VARIANTS)
    work = _Work(setting)
    results = []
    for task in map(TASKS.__getitem__, _named(setting.tasks, TASKS)):
        variants = {name: VARIANTS[name] for name in names}
        for budget in sorted(map(int, setting.budgets.split(","))):
            tried = {n: work.try_variants(task, n, budget, variants[n], tuning) for n in names}
            results += _scored(work, task, budget, tried, scored)
            if setting.halve:
                variants = {n: _better_half(n, budget, variants[n], tried[n]) for n in names}
    _add_ratios(results)
    return {
        "settings": {k: _plain(v) for k, v in vars(setting).items() if k not in ("root", "rows")},
        "models": {prior.name: prior.config["sha256"] for prior in work.priors.values()},
        "tuned_on": [c.ecg_id for c in tuning],
        "scored_on": [c.ecg_id for c in scored],
        "results": results,
    }


def _named(text: str, known: Collection[str]) -> list[str]:
    """The names in a text with commas, or all that are known."""
    names = list(known) if text == "all" else text.split(",")
    if unknown := [name for name in names if name not in known]:
        raise EcgDiffError(f"There is no {unknown[0]!r}; there are {', '.join(known)}.")
    return names


def _better_half(
    name: str, budget: int, variants: Sequence[str], tried: dict[str, float]
) -> tuple[str, ...]:
    """The half of the variants, rounded up, with the lowest CRPS; all if none was affordable."""
    if not tried:
        return tuple(variants)

    def score(variant: str) -> float:
        # What the budget could not pay was not beaten.
        return tried.get(spec(name, variant, budget) or "", 0.0)

    return tuple(sorted(variants, key=score)[: -(-len(variants) // 2)])


def _scored(
    work: "_Work", task: Task, budget: int, tried: Tried, records: Sequence[Case]
) -> list[dict[str, Any]]:
    """One entry per method: its best variant and, if that is good enough, its scores."""
    found = []
    bests = {name: min(t, key=lambda v: t[v]) for name, t in tried.items() if t}
    limit = work.within * min((tried[name][v] for name, v in bests.items()), default=math.inf)
    for name, chosen in bests.items():
        tuned = tried[name][chosen]
        good = math.isfinite(tuned) and tuned <= limit
        done = work.rows("scored", task, chosen, records) if good else []
        found.append(
            {
                "task": task.name,
                "method": name,
                "budget": budget,
                "sampler": chosen,
                "calls": _calls(named_sampler(chosen)),
                "tuned_crps": _plain(tuned),
                "tried": {k: _plain(v) for k, v in tried[name].items()},
                **_summary(done, task),
            }
        )
    return found


def _plain(value: Any) -> Any:
    """None for infinity, which JSON does not know."""
    return None if isinstance(value, float) and math.isinf(value) else value


class _Work:
    """Computes what is missing of a sampler on some records, and keeps it."""

    def __init__(self, setting: Setting) -> None:
        self.settings = Settings(setting.draws, 0, 0.02, __version__)
        self.prior, self.folder = setting.prior, Path(setting.rows)
        self.within = setting.within
        self.priors: dict[str, Prior] = {}

    def try_variants(
        self,
        task: Task,
        name: str,
        budget: int,
        variants: Sequence[str],
        records: Sequence[Case],
    ) -> dict[str, float]:
        """The CRPS of each variant that the budget allows; infinite where it diverged."""
        texts = [spec(name, variant, budget) for variant in variants]
        return {
            text: self._crps(self.rows("tuning", task, text, records))
            for text in dict.fromkeys(filter(None, texts))
        }

    def rows(self, purpose: str, task: Task, text: str, records: Sequence[Case]) -> list[Row]:
        """The rows of a sampler on some records; none if it diverged on one of them."""
        sampler = named_sampler(text)
        name = self.prior or needed_prior(sampler)
        if name not in self.priors:
            self.priors[name] = load_prior(name)
        prior = self.priors[name]
        arguments = {"model": str(prior.config["sha256"])}
        method = SamplerMethod(text, sampler, prior, self.settings.draws, 0, arguments)
        rows = Rows(self.folder / purpose / task.name / f"{text.replace(':', ' ')}.jsonl")
        todo = evaluate([task], {task.name: [method]}, records, rows, self.settings)
        try:
            for _ in tqdm(todo, desc=f"{purpose} {task.name} {text}", leave=False):
                pass
        except EcgDiffError as error:
            tqdm.write(f"{task.name}, {text}: {error}")
            return []
        done = rows.of(task, method, self.settings)
        return [done[case.ecg_id] for case in records]

    @staticmethod
    def _crps(rows: Sequence[Row]) -> float:
        scores = [_crps(row) for row in rows]
        return sum(scores) / len(scores) if scores else math.inf


def _calls(sampler: Sampler) -> int:
    return sum(sampler.nfe())


def _summary(rows: Sequence[Row], task: Task) -> dict[str, Any]:
    """The scores with their intervals; no seconds, as rows may be of different days."""
    if not rows:
        return {"scores": None}
    figures = summarize(rows, task.scored_leads)
    scores = {name: figures["scores"][name] for name in SCORES}
    return {"scores": scores, "each": [(row["patient_id"], _crps(row)) for row in rows]}


def _crps(row: Row) -> float:
    """The CRPS of a record: the mean over its scored leads."""
    return float(np.mean(row["scores"]["crps"]))


def _add_ratios(results: Sequence[dict[str, Any]]) -> None:
    """Compares each scored entry with the lowest CRPS of its task, on the same records."""
    for task in {row["task"] for row in results}:
        rows = [row for row in results if row["task"] == task and row["scores"]]
        if not rows:
            continue
        patients = [patient for patient, _ in rows[0]["each"]]
        crps = np.array([[value for _, value in row.pop("each")] for row in rows])
        best = crps[crps.mean(axis=1).argmin()]
        found = estimates(partial(_ratios, crps, best), patients, 1000)["ratio"]
        for row, *ends in zip(rows, *found.values(), strict=True):
            row["scores"]["ratio"] = dict(zip(found, ends, strict=True))


def _ratios(
    above: NDArray[np.float64], below: NDArray[np.float64], at: NDArray[np.intp]
) -> dict[str, NDArray[np.float64]]:
    """The means of several methods over one method's mean, on some records."""
    return {"ratio": above[:, at].mean(axis=1) / below[at].mean()}


def table(result: dict[str, Any]) -> str:
    """One row per task, method and budget, best CRPS first."""
    head = ["task", "sampler", "calls", "CRPS / lowest", "CRPS", "MAE draw", "MAE mean"]
    head += ["90 % band", "spread/skill", "amplitude var. ratio"]
    body = []
    for row in sorted(result["results"], key=_order):
        cells = [row["task"], f"`{row['sampler']}`", str(row["calls"])]
        if row["scores"] is None:
            tuned = row["tuned_crps"]
            word = "diverged" if tuned is None else f"not scored ({tuned:.3f} when tuned)"
            body.append([*cells, "", word, *[""] * (len(head) - 5)])
            continue
        ratio = "{value:.2f} [{low:.2f}, {high:.2f}]".format(**row["scores"]["ratio"])
        scores = (cell(row, name, nominal=False) for name in SCORES)
        body.append([*cells, ratio, *scores])
    text = "\n".join(grid(head, body))
    draws = result["settings"]["draws"]
    nominal = 100 * nominal_coverage(0.9, draws)
    return (
        f"{len(result['scored_on'])} records of fold 9, settings chosen on "
        f"{len(result['tuned_on'])} others of fold 9{_halving(result)}; {draws} draws, for which "
        f"calibrated draws fill the 90 % band to {nominal:.1f} %. Errors in mV; beside each CRPS "
        f"its ratio to the lowest of the task, on the same records. Brackets: 95 % bootstrap "
        f"interval over patients.\n\n{text}"
    )


def _halving(result: dict[str, Any]) -> str:
    halved = result["settings"].get("halve")
    return " among the better half of those of the budget below" if halved else ""


def _order(row: dict[str, Any]) -> tuple[str, bool, float]:
    tuned = math.inf if row["tuned_crps"] is None else row["tuned_crps"]
    scored = row["scores"] is not None
    return row["task"], not scored, row["scores"]["crps"]["value"] if scored else tuned


def figure(result: dict[str, Any]) -> dict[str, Any]:
    """CRPS against calls, a line per method: above on the scored records, below when tuned.

    Below are all methods, each with its best variant, on the few records it was chosen on.
    """
    data = []
    colors = dict(zip(VARIANTS, _palette(len(VARIANTS)), strict=True))
    layout: dict[str, Any] = {"height": 900, "title": {"text": "CRPS against network calls"}}
    columns = zip(TASKS, ([0, 0.46], [0.54, 1]), strict=True)
    panels = [(task, x, scored) for task, x in columns for scored in (True, False)]
    for panel, (task, x, scored) in enumerate(panels, 1):
        count = len(result["scored_on" if scored else "tuned_on"])
        what = f"{task}: network calls per draw ({count} records)"
        layout[f"xaxis{panel}"] = {
            "type": "log",
            "domain": x,
            "anchor": f"y{panel}",
            "title": {"text": what},
        }
        layout[f"yaxis{panel}"] = {
            "anchor": f"x{panel}",
            "domain": [0.56, 1] if scored else [0, 0.44],
            "title": {"text": "CRPS, mV" if scored else "CRPS when tuned, mV"},
        }
        for name in VARIANTS:
            rows = [r for r in result["results"] if (r["task"], r["method"]) == (task, name)]
            points = _scored_points(rows) if scored else _tuned_points(rows)
            line = {"line": {"color": colors[name]}, "xaxis": f"x{panel}", "yaxis": f"y{panel}"}
            legend = {"name": name, "legendgroup": name, "showlegend": panel == 2}
            data.append({"type": "scatter", "mode": "lines+markers", **legend, **line, **points})
    return {"data": data, "layout": layout}


def _scored_points(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    rows = [row for row in rows if row["scores"]]
    crps = [row["scores"]["crps"] for row in rows]
    return {
        "x": [row["calls"] for row in rows],
        "y": [c["value"] for c in crps],
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [c["high"] - c["value"] for c in crps],
            "arrayminus": [c["value"] - c["low"] for c in crps],
        },
        "text": [row["sampler"] for row in rows],
    }


def _tuned_points(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    rows = [row for row in rows if row["tuned_crps"] is not None]
    return {
        "x": [row["calls"] for row in rows],
        "y": [row["tuned_crps"] for row in rows],
        "text": [row["sampler"] for row in rows],
    }


def _palette(count: int) -> list[str]:
    return [f"hsl({round(360 * k / count)}, 65%, 42%)" for k in range(count)]
