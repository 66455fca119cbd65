"""Reconstructs fixed records of the test fold and prints the figures: `ecgdiff.evaluation`.

Writes OUT/first_figures.jsonl (one line per finished record, the resume file),
OUT/first_figures.json and OUT/first_figures.md. With `--write-list` it draws a record list
instead.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ecgdiff import __version__
from ecgdiff.data.ptbxl import PTBXL
from ecgdiff.diffusion.denoiser import EpsDenoiser, NetworkDenoiser
from ecgdiff.diffusion.inpainting import InpaintingDenoiser
from ecgdiff.ecg.leads import LEADS_8
from ecgdiff.errors import EcgDiffError
from ecgdiff.evaluation.benchmark import Method, Rows, SamplerMethod, Settings, run
from ecgdiff.evaluation.controls import Controls, Gaussian, Mean, RidgeControl
from ecgdiff.evaluation.records import SAMPLING_RATE, batches, cases, draw_list, read_list
from ecgdiff.evaluation.summary import DEFINITIONS, markdown, report
from ecgdiff.evaluation.tasks import TASKS
from ecgdiff.prior import Prior, load_prior, needed_prior
from ecgdiff.samplers import named_sampler
from ecgdiff.samplers.base import Sampler

TRAIN_FOLDS, VALID_FOLDS = range(1, 9), (9,)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    args = _parser().parse_args(arguments)
    try:
        if args.write_list:
            rows = PTBXL(args.root).rows((args.fold,))
            other = read_list(args.other_than) if args.other_than else None
            drawn = draw_list(rows, args.fold, args.count, args.seed, other)
            drawn.write(args.write_list)
            print(f"wrote {args.write_list}")
        else:
            _evaluate(args)
    except EcgDiffError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ecgdiff.evaluation", description=__doc__)
    add = parser.add_argument
    add("--root", required=True, help="folder of PTB-XL 1.0.3 with records100/")
    add("--task", choices=[*TASKS, "all"], default="all")
    add(
        "--sampler",
        action="append",
        default=[],
        metavar="NAME[:ARG=VALUE,...]",
        help="such as mgps or mgps:steps=300; repeat for more, leave out for the controls only",
    )
    add("--prior", help="name or folder of the prior (default: what each sampler needs)")
    add("--draws", type=_positive, default=10, help="draws per record")
    add("--seed", type=int, default=0)
    add("--noise", type=float, default=0.02, help="noise added to the observation, mV")
    add("--records", default="fold10_100", help="name of a committed list or a JSON file")
    add("--limit", type=_positive, help="only the first records of the list")
    add("--batch", type=_positive, default=1, help="records per batch (each with all its draws)")
    add("--no-controls", action="store_true", help="only the samplers, as when tuning them")
    add("--device", default="cpu", help="cpu or cuda")
    add("--out", default="results", help="folder for the results")
    add("--write-list", metavar="FILE", help="draw a record list with --seed, and stop")
    add("--fold", type=int, choices=[9, 10], default=10, help="the fold of --write-list")
    add("--count", type=_positive, default=100, help="the records of --write-list")
    add("--other-than", metavar="LIST", help="a list whose patients --write-list leaves out")
    return parser


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{value} is not a positive number")
    return value


def _evaluate(args: argparse.Namespace) -> None:
    data, out = PTBXL(args.root), Path(args.out)
    chosen = read_list(args.records)
    tasks = list(TASKS.values()) if args.task == "all" else [TASKS[args.task]]
    settings = Settings(args.draws, args.seed, args.noise, __version__)
    controls = Controls(
        lambda: batches(data, TRAIN_FOLDS), lambda: batches(data, VALID_FOLDS), args.noise
    )
    samplers = _samplers(args)
    shared: list[Method] = [*samplers, Gaussian(controls, args.draws, args.seed), Mean(controls)]
    methods = {
        t.name: [*shared, RidgeControl(controls)] if t.name == "leads" else shared for t in tasks
    }
    if args.no_controls:
        methods = {t.name: list(samplers) for t in tasks}
    todo = cases(data, chosen)[: args.limit]
    rows = Rows(out / "first_figures.jsonl")
    wanted = {c.ecg_id for c in todo}
    finished = sum(
        len(wanted & set(rows.of(t, m, settings))) for t in tasks for m in methods[t.name]
    )
    total = len(todo) * sum(map(len, methods.values()))
    lines = run(
        tasks, methods, todo, rows, settings, batch=args.batch, device=_device(args.device)
    )
    for _ in tqdm(lines, initial=finished, total=total, unit="row"):
        pass
    document = {
        "command": _command(args),
        "settings": asdict(settings),
        "torch": torch.__version__,
        "priors": {m.prior.name: str(m.prior.config["sha256"]) for m in samplers},
        "records": {**asdict(chosen), "ecg_ids": [c.ecg_id for c in todo]},
        "definitions": DEFINITIONS,
        "tasks": report(tasks, methods, todo, rows, settings),
    }
    text = markdown(document)
    (out / "first_figures.json").write_text(
        json.dumps(document, indent=1) + "\n", encoding="utf-8"
    )
    (out / "first_figures.md").write_text(text, encoding="utf-8")
    print(text)


def _samplers(args: argparse.Namespace) -> list[SamplerMethod]:
    """The samplers asked for, each with its prior."""
    methods, priors = [], dict[str, Prior]()
    for text in dict.fromkeys(args.sampler):
        try:
            sampler = named_sampler(text)
        except ValueError as error:
            raise EcgDiffError(f"--sampler {text}: {error}") from error
        name = args.prior or needed_prior(sampler)
        if name not in priors:
            priors[name] = _prior(name, args.device)
        prior = priors[name]
        model = str(prior.config["sha256"])
        facts = {"class": type(sampler).__name__, **_fields(sampler), "model": model}
        methods.append(
            SamplerMethod(text, sampler, prior, args.draws, args.seed, facts, args.device)
        )
    return methods


def _prior(name: str, device: str) -> Prior:
    prior = load_prior(name)
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
    """The command to run again; the place of the data set is the reader's own."""
    parts = ["python", "-m", "ecgdiff.evaluation", "--root", "PTBXL_DIR", "--task", args.task]
    for text in args.sampler:
        parts += ["--sampler", text]
    if args.no_controls:
        parts.append("--no-controls")
    for name in ("prior", "draws", "seed", "noise", "records", "limit", "batch", "device", "out"):
        if getattr(args, name) is not None:
            parts += [f"--{name}", str(getattr(args, name))]
    return shlex.join(parts)


def _device(device: str) -> str:
    """A word on the machine that the seconds belong to."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{device}, {threads} thread{'s' if threads > 1 else ''}"


if __name__ == "__main__":
    sys.exit(main())
