"""`ecgdiff`: the command line. Data goes to stdout, talk to stderr.

Exit codes: 0 done, 1 failed, 2 usage, 3 refused by the quality gate.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import ecgdiff
from ecgdiff.ecg.leads import canonical
from ecgdiff.errors import EcgDiffError, OperatorError, SignalQualityError

__all__ = ["main"]

USUAL_PRIOR = "inpainting"


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
    card.add_argument(
        "--prior",
        default=USUAL_PRIOR,
        help=f"name or checkpoint folder (default: {USUAL_PRIOR}, which reconstruct takes)",
    )
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
        metavar="LEAD|START-STOP|LEAD:START-STOP",
        help="what to treat as lost: leads (V1), seconds of all leads (3.0-5.5) or of one "
        "(V1:3.0-5.5), with spaces between them",
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
    command.add_argument("--draws", type=_count, default=10, help="how many ECGs (default 10)")
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


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


def _lost(text: str) -> str | tuple[float, float] | tuple[str, float, float]:
    """A lead, a block of all leads, or a block of one."""
    name, colon, block = text.rpartition(":")
    try:
        lead = canonical(name) if colon else ""
        start, dash, stop = block.partition("-")
        if not (colon or dash):
            return canonical(text)
        times = float(start), float(stop)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither a lead (V1) nor seconds (3.0-5.5) nor seconds of a lead "
            "(V1:3.0-5.5); put spaces between several"
        ) from None
    if times[0] >= times[1]:
        raise argparse.ArgumentTypeError(f"{text!r} ends before it begins; write START-STOP")
    return (lead, *times) if colon else times


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
    # What a model drew is not measured, whatever samples the file has.
    evidence = recording.without_synthetic()
    report = check(evidence)
    found = {
        "file": str(options.file),
        "leads": list(recording.leads),
        "sampling_rate_hz": recording.sampling_rate,
        "duration_s": recording.duration,
        "provenance": dict(zip(recording.leads, recording.provenance, strict=True)),
        "measured": {
            lead: float(row.mean())
            for lead, row in zip(recording.leads, evidence.measured, strict=True)
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
    if options.out.exists() and not options.out.is_dir():
        raise EcgDiffError(f"--out {options.out} is a file; give a folder for the results.")
    options.out.mkdir(parents=True, exist_ok=True)
    there = [path for path in export_paths(options.out, stem).values() if path.exists()]
    if there and not options.overwrite:
        raise EcgDiffError(f"{there[0]} exists already; give --overwrite, or another --out.")
    recording = _recording(options)
    _check_start(options, recording)
    result = _draw(options, recording, **_understood(options))
    _export(options, result, stem)


def _check_start(options: argparse.Namespace, recording: "ecgdiff.Recording") -> None:
    """Before anything is drawn."""
    if not 0 <= options.start < recording.duration:
        raise EcgDiffError(
            f"--start {options.start:g} lies outside the recording, which lasts "
            f"{recording.duration:g} s."
        )


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
        result = _draw(options, recording, **_understood(options))
        found = _diagnosed(result, **settings)
    else:
        _say(found.meta["warnings"])
    if options.json:
        print(json.dumps({"file": str(options.file), **found.to_dict()}, ensure_ascii=False))
    else:
        print(found)


def _diagnosed(result: "ecgdiff.Reconstruction", **settings: Any) -> "ecgdiff.Diagnosis":
    """Reads the draws; what is to be noted of the reconstruction was said when it was drawn."""
    found = ecgdiff.diagnose(result, **settings)
    _say(note for note in found.meta["warnings"] if note not in result.meta["warnings"])
    return found


def _say(notes: Iterable[str]) -> None:
    for note in notes:
        print(f"ecgdiff: note: {note}", file=sys.stderr)


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
    _check_start(options, recording)
    truth = load_truth()
    result = _draw(options, recording)
    _export(options, result, "demo", truth=truth)
    print(_diagnosed(result))
    print("The same, of the twelve leads that were really measured and that no draw saw:")
    print(ecgdiff.diagnose(truth))


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
    _say(result.meta["warnings"])
    method, _, _ = str(result.meta["sampler"]).partition("(")
    print(f"ecgdiff: {result}", file=sys.stderr)
    print(f"ecgdiff: by {method} with the prior {result.meta['prior']}", file=sys.stderr)
    if "synthetic" not in result.provenance:
        print("ecgdiff: note: nothing was lost, so all draws are the recording", file=sys.stderr)
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
