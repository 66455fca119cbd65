"""`ecgdiff`: the command line. Data goes to stdout, talk to stderr.

Exit codes: 0 done, 1 failed, 2 usage, 3 refused by the quality gate.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ecgdiff
from ecgdiff.errors import EcgDiffError, OperatorError, SignalQualityError

__all__ = ["main"]


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    options = _parser().parse_args(args)
    try:
        options.run(options)
    except SignalQualityError as error:
        print(f"ecgdiff: refused: {error}", file=sys.stderr)
        return 3
    except (EcgDiffError, ValueError, OSError, ImportError) as error:
        print(f"ecgdiff: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ecgdiff",
        description="From an incomplete ECG to samples of the complete 12-lead ECG. "
        "Research use only, not for clinical or diagnostic purposes.",
    )
    version = f"ecgdiff {ecgdiff.__version__} - research use only"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_read(commands)
    _add_reconstruct(commands)
    _add_diagnose(commands)
    _add_demo(commands)
    info = commands.add_parser("info", help="print the card of a prior or a classifier")
    card = info.add_mutually_exclusive_group()
    card.add_argument("--prior", default="default", help="name or checkpoint folder")
    card.add_argument("--classifier", help="name or checkpoint folder")
    info.set_defaults(run=_info)
    return parser


def _add_read(commands: Any) -> None:
    read = commands.add_parser("read", help="say what a file holds and how good it is, as JSON")
    _add_input(read)
    read.set_defaults(run=_read)


def _add_reconstruct(commands: Any) -> None:
    command = commands.add_parser("reconstruct", help="draw the complete 12-lead ECG")
    _add_input(command)
    command.add_argument("--out", type=Path, required=True, help="folder for the results")
    _add_recording(command)
    command.add_argument(
        "--overwrite", action="store_true", help="replace results that are already there"
    )
    command.add_argument(
        "--start", type=float, default=0.0, help="second at which the figure's 10 s page begins"
    )
    _add_sampling(command)
    command.set_defaults(run=_reconstruct)


def _add_diagnose(commands: Any) -> None:
    command = commands.add_parser(
        "diagnose",
        help="probability of conditions; an incomplete recording is reconstructed first",
        description="The probability of each condition, and where the ECG was reconstructed its "
        "interval over draws. Research use only, not for clinical or diagnostic purposes.",
    )
    _add_input(command)
    _add_recording(command)
    command.add_argument(
        "--conditions", nargs="+", metavar="CODE", help="SCP codes, or all (default: four)"
    )
    command.add_argument(
        "--rule",
        choices=["youden", "f1"],
        default="youden",
        help="how the validation threshold was chosen (default youden)",
    )
    command.add_argument(
        "--classifier", default="default", help="name or checkpoint folder (default: default)"
    )
    command.add_argument("--json", action="store_true", help="one line of JSON")
    _add_sampling(command)
    command.set_defaults(run=_diagnose)


def _add_recording(command: argparse.ArgumentParser) -> None:
    """How the recording is to be understood."""
    command.add_argument(
        "--lost",
        nargs="+",
        type=_lost,
        default=[],
        metavar="LEAD|START-STOP",
        help="what to treat as lost: lead names, blocks in seconds such as 3.0-5.5",
    )
    command.add_argument(
        "--assume-lead",
        metavar="LEAD",
        help="what a single-lead recording of unknown lead stands for, such as I",
    )
    command.add_argument(
        "--allow", nargs="+", default=[], metavar="NAME", help="quality findings to override"
    )
    command.add_argument("--noise", type=float, default=0.02, help="noise in mV (default 0.02)")


def _add_demo(commands: Any) -> None:
    demo = commands.add_parser(
        "demo", help="reconstruct a real recording that comes with the package"
    )
    demo.add_argument("--out", type=Path, default=Path("ecgdiff-demo"), help="folder for results")
    demo.add_argument(
        "--start", type=float, default=0.0, help="second at which the figure's 10 s page begins"
    )
    _add_sampling(demo)
    demo.set_defaults(run=_demo)


def _add_input(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", type=Path, help="WFDB record, Apple Watch CSV, CSV or NPZ")
    command.add_argument("--sampling-rate", type=float, help="in Hz, if the file does not say")
    command.add_argument("--units", help="mV, uV or V, if the file does not say")
    command.add_argument("--leads", nargs="+", help="lead names, if the file does not say")


def _add_sampling(command: argparse.ArgumentParser) -> None:
    command.add_argument("--draws", type=int, default=10, help="how many ECGs (default 10)")
    command.add_argument(
        "--sampler",
        default=None,
        metavar="NAME[.PRESET][:ARG=VALUE,...]",
        help="method, such as mmps or mmps:iterations=2 (default: the package's)",
    )
    command.add_argument("--seed", type=int, default=0, help="seed of the draws (default 0)")
    command.add_argument(
        "--prior", default=None, help="name or checkpoint folder (default: what the method needs)"
    )


def _lost(text: str) -> str | tuple[float, float]:
    start, dash, stop = text.partition("-")
    try:
        return (float(start), float(stop)) if dash else text
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither a lead nor a block such as 3.0-5.5"
        ) from None


def _load(options: argparse.Namespace) -> "ecgdiff.Recording":
    return ecgdiff.read(
        options.file,
        sampling_rate=options.sampling_rate,
        units=options.units,
        leads=options.leads,
    )


def _read(options: argparse.Namespace) -> None:
    from ecgdiff.ecg.quality import check

    recording = _load(options)
    report = check(recording)
    found = {
        "file": str(options.file),
        "leads": list(recording.leads),
        "sampling_rate_hz": recording.sampling_rate,
        "duration_s": recording.duration,
        "measured": {
            lead: float(row.mean())
            for lead, row in zip(recording.leads, recording.measured, strict=True)
        },
        "refused": report.refused(),
        "findings": [
            {"name": f.name, "lead": f.lead, "severity": f.severity, "message": f.message}
            for f in report.findings
        ],
    }
    print(json.dumps(found, ensure_ascii=False))


def _reconstruct(options: argparse.Namespace) -> None:
    from ecgdiff.export import check_plotting, export_paths

    check_plotting()
    stem = options.file.stem
    options.out.mkdir(parents=True, exist_ok=True)
    there = [path for path in export_paths(options.out, stem).values() if path.exists()]
    if there and not options.overwrite:
        raise EcgDiffError(f"{there[0]} exists already; give --overwrite, or another --out.")
    result = _draw(options, _recording(options), **_understood(options))
    _export(options, result, stem)


def _diagnose(options: argparse.Namespace) -> None:
    from ecgdiff.data.statements import CONDITIONS
    from ecgdiff.lost import lose

    wanted = options.conditions or CONDITIONS
    settings = {
        "conditions": "all" if wanted == ["all"] else wanted,
        "classifier": options.classifier,
        "rule": options.rule,
    }
    recording = _recording(options)
    try:
        whole = lose(recording, options.lost)
        found = ecgdiff.diagnose(whole, allow=options.allow, **settings)
    except OperatorError:
        print("ecgdiff: not all leads were measured: reconstructing them first", file=sys.stderr)
        found = ecgdiff.diagnose(_draw(options, recording, **_understood(options)), **settings)
    else:
        for warning in found.meta["warnings"]:
            print(f"ecgdiff: note: {warning}", file=sys.stderr)
    if options.json:
        print(json.dumps({"file": str(options.file), **found.to_dict()}, ensure_ascii=False))
    else:
        print(found)


def _recording(options: argparse.Namespace) -> "ecgdiff.Recording":
    recording = _load(options)
    return recording.with_leads_as(options.assume_lead) if options.assume_lead else recording


def _understood(options: argparse.Namespace) -> dict[str, Any]:
    return {"lost": options.lost, "allow": options.allow, "noise": options.noise}


def _demo(options: argparse.Namespace) -> None:
    from ecgdiff.demo import load_truth, watch_csv
    from ecgdiff.export import check_plotting

    with watch_csv() as path:
        recording = ecgdiff.read(path)
    check_plotting()
    result = _draw(options, recording)
    _export(options, result, "demo", truth=load_truth())
    print(ecgdiff.diagnose(result))


def _draw(
    options: argparse.Namespace, recording: "ecgdiff.Recording", **settings: Any
) -> "ecgdiff.Reconstruction":
    """Reconstructs with a progress bar."""
    from tqdm import tqdm

    with tqdm(desc=f"drawing {options.draws} ECGs", unit="step") as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        result = ecgdiff.reconstruct(
            recording,
            draws=options.draws,
            sampler=options.sampler,
            seed=options.seed,
            prior=options.prior,
            progress=progress,
            **settings,
        )
    for warning in result.meta["warnings"]:
        print(f"ecgdiff: note: {warning}", file=sys.stderr)
    print(f"ecgdiff: {result}", file=sys.stderr)
    return result


def _export(
    options: argparse.Namespace,
    result: "ecgdiff.Reconstruction",
    stem: str,
    truth: "ecgdiff.Recording | None" = None,
) -> None:
    """Writes the files and names them."""
    from ecgdiff.export import export

    written = export(result, options.out, stem, truth=truth, start=options.start)
    for what, path in written.items():
        print(f"{what}: {path}")


def _info(options: argparse.Namespace) -> None:
    from ecgdiff.classifier import classifier_folder
    from ecgdiff.prior import prior_folder

    if options.classifier:
        folder = classifier_folder(options.classifier)
    else:
        folder = prior_folder(options.prior)
    print((folder / "README.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(main())
