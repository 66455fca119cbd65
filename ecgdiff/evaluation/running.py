"""From the arguments of `python -m ecgdiff.evaluation run` to its rows and files."""

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from ecgdiff import __version__
from ecgdiff.data.ptbxl import PTBXL
from ecgdiff.diffusion.denoiser import EpsDenoiser, NetworkDenoiser
from ecgdiff.diffusion.inpainting import InpaintingDenoiser
from ecgdiff.ecg.leads import LEADS_8
from ecgdiff.errors import DataError, EcgDiffError
from ecgdiff.evaluation.benchmark import Method, Rows, SamplerMethod, Settings, finished, run
from ecgdiff.evaluation.controls import Controls, Gaussian, Mean, RidgeControl
from ecgdiff.evaluation.first_figures import markdown, report
from ecgdiff.evaluation.folder import begin, compare, compared, joined, locked, write
from ecgdiff.evaluation.journal import Row, failed, incomplete, latest
from ecgdiff.evaluation.kept import Kept, known
from ecgdiff.evaluation.neighbors import Library, Neighbors
from ecgdiff.evaluation.outputs import check_folder, told
from ecgdiff.evaluation.parquet import require_pyarrow, write_rows
from ecgdiff.evaluation.records import (
    SAMPLING_RATE,
    RecordList,
    batches,
    cases,
    disturbed,
    read_list,
)
from ecgdiff.evaluation.scoring import Reader
from ecgdiff.evaluation.shape import require_neurokit
from ecgdiff.evaluation.summary import DEFINITIONS
from ecgdiff.evaluation.tasks import PAPER_TASKS, TASKS, Case, Task
from ecgdiff.evaluation.timeleft import TimeLeft
from ecgdiff.evaluation.unet import QuantileControl, UNetControl, load_unet
from ecgdiff.models.autocast import slowdown
from ecgdiff.prior import Prior, load_prior, needed_prior
from ecgdiff.samplers import named_sampler
from ecgdiff.samplers.base import Sampler
from ecgdiff.samplers.conditional import Conditional

__all__ = ["CHOICES", "evaluate"]

TRAIN_FOLDS, VALID_FOLDS = range(1, 9), (9,)
CHOICES: dict[str, list[Task]] = {
    **{name: [task] for name, task in TASKS.items()},
    "paper": list(PAPER_TASKS.values()),
    "all": list(TASKS.values()),
}
_BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} rows [{elapsed}{postfix}]"


@dataclass(frozen=True)
class _Plan:
    """All that decides a run."""

    tasks: Sequence[Task]
    methods: Mapping[str, Sequence[Method]]
    records: RecordList
    listed: Sequence[Case]
    cases: Sequence[Case]  # those of the list that this run computes
    settings: Settings
    reader: Reader | None
    header: Mapping[str, Any]


def evaluate(args: argparse.Namespace) -> str:
    """Computes the rows that are missing and writes the files.

    Arguments:
        args: The arguments of the command.

    Returns:
        The figures as Markdown.

    Raises:
        EcgDiffError: If arguments or data are wrong, the folder cannot be written, another run is
            at work in it, or it holds rows of other settings or another list.
        ImportError: If pyarrow is not installed, or neurokit2 with --morphology.
    """
    require_pyarrow()
    if args.morphology:
        require_neurokit()
    check_folder(args.out)
    _check_device(args.device)
    plan, out = _plan(args), Path(args.out)
    kept = known(args.known) if args.known else []
    with locked(out):
        rows = Rows(out / "first_figures.jsonl")
        header = compared(out, _with_kept(plan, kept), rows.rows)
        for task in plan.tasks:
            for method in plan.methods[task.name]:
                rows.of(task, method, plan.settings)  # refuses those of other arguments
        begin(out, header)
        rows.adopt([row for _, _, these in kept for row in these])
        _compute(args, plan, rows)
        found = _with_records(plan, rows)
        write_rows(out / "rows.parquet", found, header)
        document = {
            **{k: header[k] for k in ("commands", "settings", "torch", "priors", "records")},
            "definitions": DEFINITIONS,
            "tasks": report(plan.tasks, found, len(plan.listed), header["methods"]),
        }
        text = markdown(document)
        write(out / "first_figures.json", json.dumps(document, indent=1) + "\n")
        write(out / "first_figures.md", text)
    return text


def _plan(args: argparse.Namespace) -> _Plan:
    data, tasks = PTBXL(args.root), CHOICES[args.task]
    chosen = read_list(args.records)
    reader, name = _reader(args)
    shapes = args.morphology or None  # None leaves the fingerprints of other rows as they are
    settings = Settings(args.draws, args.seed, args.noise, __version__, name, shapes, spectra=True)
    listed = cases(data, chosen)
    samplers = _samplers(args, [task.masks(listed[0], args.seed)[0] for task in tasks])
    methods = _methods(args, data, tasks, samplers)
    header = {
        "commands": [_command(args)],
        "settings": {k: v for k, v in asdict(settings).items() if v is not None},
        "torch": torch.__version__,
        "priors": {m.prior.name: str(m.prior.config["sha256"]) for m in samplers},
        "records": {k: v for k, v in asdict(chosen).items() if k != "inclusion" or v},
        "methods": {
            name: {method.label: dict(method.arguments) for method in these}
            for name, these in methods.items()
        },
    }
    computed = listed[: args.limit]  # all without a limit
    return _Plan(tasks, methods, chosen, listed, computed, settings, reader, header)


def _with_kept(plan: _Plan, kept: Sequence[Kept]) -> Mapping[str, Any]:
    """The header with the methods of kept rows; refuses rows that this run would make anew."""
    now = {
        (task.name, method.label): plan.settings.fingerprint(task, method)
        for task in plan.tasks
        for method in plan.methods[task.name]
    }
    header = plan.header
    for path, there, rows in kept:
        compare(path, there, plan.header)
        header = joined(there, header)
        if any(
            r["fingerprint"] != now.get((r["task"], r["method"]), r["fingerprint"]) for r in rows
        ):
            raise DataError(
                f"{path} was made with another model or other arguments than this run's method "
                "of that name. Delete the file from a copy of the folder to compute its rows "
                "again, or run the package version that made it."
            )
    return header


def _methods(
    args: argparse.Namespace, data: PTBXL, tasks: Sequence[Task], samplers: Sequence[Method]
) -> dict[str, list[Method]]:
    """The samplers, and the controls that apply to each task."""
    unets = [_unet(folder, args) for folder in args.unet]
    if len({unet.label for unet in unets}) < len(unets):
        raise EcgDiffError("Give at most one U-Net without and one with quantiles.")
    # The U-Nets were trained with white noise only.
    quiet = {task.name: [] if task.name == "noisy" else unets for task in tasks}
    if args.no_controls:
        return {task.name: [*samplers, *quiet[task.name]] for task in tasks}
    train, valid = partial(batches, data, TRAIN_FOLDS), partial(batches, data, VALID_FOLDS)
    controls = Controls(train, valid, args.noise)
    shared: list[Method] = [*samplers, Gaussian(controls, args.draws, args.seed), Mean(controls)]
    # What knows lead I only is asked only where nothing else was observed.
    neighbors = Neighbors(Library(train), args.draws)
    more: dict[str, list[Method]] = {
        "leads": [RidgeControl(controls), neighbors],
        "noisy": [_noisy_ridge(args, train, valid), neighbors],
    }
    return {t.name: [*shared, *quiet[t.name], *more.get(t.name, [])] for t in tasks}


def _unet(folder: str, args: argparse.Namespace) -> Method:
    """A U-Net as the control that it was trained to be."""
    model = load_unet(folder)
    return QuantileControl(model, args.draws, args.seed) if model.levels else UNetControl(model)


def _noisy_ridge(
    args: argparse.Namespace,
    train: Callable[[], Iterable[NDArray[np.float32]]],
    valid: Callable[[], Iterable[NDArray[np.float32]]],
) -> RidgeControl:
    """The ridge regression fitted to records with the noise of the task."""
    task = TASKS["noisy"]
    controls = Controls(
        partial(disturbed, train, task, args.seed),
        partial(disturbed, valid, task, args.seed),
        args.noise,
    )
    facts = {**RidgeControl(controls).arguments, "disturbed": task.describe()["observed"]}
    return RidgeControl(controls, arguments=facts)


def _compute(args: argparse.Namespace, plan: _Plan, rows: Rows) -> None:
    """Computes what is missing, behind a bar that says how long it will take."""
    ids = {case.ecg_id for case in plan.cases}
    there, todo, calls = [], {}, {}
    for task in plan.tasks:
        for method in plan.methods[task.name]:
            done = finished(rows, task, method, plan.settings, retry_failed=args.retry_failed)
            there += [row for i, row in done.items() if i in ids]
            todo[task.name, method.label] = len(ids - set(done))
            calls[task.name, method.label] = sum(method.calls)
            if ids - set(done):
                _fit(method)
    left = TimeLeft(todo, calls, there, args.workers)
    lost = [row for row in there if incomplete(row)]
    made = run(
        plan.tasks,
        plan.methods,
        plan.cases,
        rows,
        plan.settings,
        batch=args.batch,
        device=_device(args),
        reader=plan.reader,
        workers=args.workers,
        keep_errors=True,
        retry_failed=args.retry_failed,
    )
    total = len(there) + sum(todo.values())
    with tqdm(initial=len(there), total=total, bar_format=_BAR) as bar:
        for row in made:
            left.add(row)
            lost += [row] if incomplete(row) else []
            seconds = left.seconds()
            about = "?" if seconds is None else tqdm.format_interval(seconds)
            bar.set_postfix_str(f"about {about} left, {_losses(lost)}", refresh=False)
            bar.update()


def _losses(rows: Sequence[Row]) -> str:
    """How many of the incomplete rows failed, and how many only in part."""
    whole = sum(map(failed, rows))
    return f"{whole} failed" + (f", {len(rows) - whole} in part" if whole < len(rows) else "")


def _fit(method: Method) -> None:
    """Fits a control once, before workers copy it; missing folds are no failure of a record."""
    if isinstance(method, Gaussian | Mean | RidgeControl):
        _ = method.controls.mean
    elif isinstance(method, Neighbors):
        _ = method.library.members


def _with_records(plan: _Plan, rows: Rows) -> list[Row]:
    """The rows of all methods there are, with what is known of each record."""
    known = {
        case.ecg_id: {
            "weight": plan.records.weights[case.ecg_id],
            "statements": sorted(case.statements),
        }
        for case in plan.listed
    }
    return [{**row, **known[row["ecg_id"]]} for row in latest(rows.rows) if row["ecg_id"] in known]


def _reader(args: argparse.Namespace) -> tuple[Reader | None, str | None]:
    """The classifier asked for, and what identifies it."""
    if args.classifier is None:
        return None, None
    from ecgdiff.classifier import load_classifier

    classifier = load_classifier(args.classifier)
    if classifier.sampling_rate != SAMPLING_RATE:
        raise EcgDiffError(
            f"The classifier {classifier.name} reads {classifier.sampling_rate:g} Hz; the "
            f"evaluation needs one for {SAMPLING_RATE:g} Hz."
        )
    return classifier, f"{classifier.name} {classifier.config['sha256']}"


def _samplers(args: argparse.Namespace, masks: Sequence[NDArray[np.bool_]]) -> list[SamplerMethod]:
    """The samplers asked for, each with its prior, which may be shown what the tasks measure."""
    methods, priors = [], dict[str, Prior]()
    for text in dict.fromkeys(args.sampler):
        try:
            sampler = named_sampler(text)
        except ValueError as error:
            raise EcgDiffError(f"--sampler {text}: {error}") from error
        usual = needed_prior(sampler)
        name = args.prior or usual
        if name not in priors:
            priors[name] = _prior(name, args.precision, args.device)
        prior = priors[name]
        if isinstance(sampler, Conditional):
            for mask in masks:
                prior.check_shown(mask)
        # One folder, and one table, may hold the rows of a sampler with several priors.
        label = text if prior.name == usual else f"{text}, prior {prior.name}"
        model = str(prior.config["sha256"])
        facts = {"class": type(sampler).__name__, **_fields(sampler), "model": model}
        if args.precision != "float32":  # which leaves the fingerprints of other rows as they are
            label, facts["precision"] = f"{label}, {args.precision}", args.precision
        methods.append(
            SamplerMethod(label, sampler, prior, args.draws, args.seed, facts, args.device)
        )
    return methods


def _prior(name: str, precision: Literal["float32", "bfloat16"], device: str) -> Prior:
    if precision == "bfloat16" and device == "cpu" and (times := slowdown()) > 1:
        print(
            f"note: this processor multiplies matrices {times:.0f} times as slowly in bfloat16 as "
            "in float32",
            file=sys.stderr,
        )
    prior = load_prior(name, precision)
    if (prior.leads, prior.n_samples, prior.sampling_rate) != (LEADS_8, 1000, SAMPLING_RATE):
        raise EcgDiffError(
            f"The prior {prior.name} models leads {', '.join(prior.leads)}, {prior.n_samples} "
            f"samples at {prior.sampling_rate} Hz; the evaluation needs {', '.join(LEADS_8)}, "
            "1000 samples at 100 Hz."
        )
    if isinstance(prior.denoiser, NetworkDenoiser | EpsDenoiser | InpaintingDenoiser):
        prior.denoiser.net.to(device)
    return prior


def _fields(sampler: Sampler) -> dict[str, Any]:
    """The sampler's arguments, values that JSON does not know as text."""
    fields: dict[str, Any] = asdict(sampler) if is_dataclass(sampler) else {}
    return json.loads(json.dumps(fields, default=str))


def _command(args: argparse.Namespace) -> str:
    """The command to run again; places are the reader's own."""
    parts = ["python", "-m", "ecgdiff.evaluation", "run", "--root", "PTBXL_DIR"]
    parts += ["--task", args.task]
    for text in args.sampler:
        parts += ["--sampler", text]
    for folder in args.unet:
        parts += ["--unet", told(folder)]
    if args.no_controls:
        parts.append("--no-controls")
    if args.morphology:
        parts.append("--morphology")
    if args.precision != "float32":
        parts += ["--precision", args.precision]
    for name in ("prior", "classifier", "draws", "seed", "noise", "records", "limit", "batch"):
        if getattr(args, name) is not None:
            parts += [f"--{name}", told(str(getattr(args, name)))]
    parts += ["--known", told(args.known)] if args.known else []
    parts += ["--workers", str(args.workers)] if args.workers > 1 else []
    return shlex.join([*parts, "--device", args.device, "--out", told(args.out)])


def _check_device(name: str) -> None:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise EcgDiffError(f"--device {name} is no device; give cpu or cuda.") from error
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= there:
        raise EcgDiffError(
            f"--device {name}: no such CUDA device (PyTorch {torch.__version__} finds {there}); "
            "give --device cpu, or run where there is one."
        )


def _device(args: argparse.Namespace) -> str:
    """A word on the machine that the seconds belong to."""
    if torch.device(args.device).type == "cuda":
        return torch.cuda.get_device_name(args.device)
    threads = torch.get_num_threads() if args.workers == 1 else 1
    beside = f", {args.workers} at a time" if args.workers > 1 else ""
    return f"{args.device}, {threads} thread{'s' if threads > 1 else ''}{beside}"
