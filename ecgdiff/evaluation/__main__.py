"""Reconstructs fixed records of the test fold and shows the figures: `ecgdiff.evaluation`.

`run` computes the rows and writes OUT/first_figures.jsonl (one line per finished record, the
resume file), OUT/rows.parquet (the same, for `table`, `figure` and other programs),
OUT/first_figures.json and OUT/first_figures.md (all methods of the folder, tasks of the run).
OUT/run.json says which settings and which list of records the folder is for. `table` and `figure`
show the rows, `readings` what a classifier reads from them; `list` draws a list of records. `keep`
writes small files of finished rows, which `run --known` takes instead of computing them again.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from ecgdiff.data.ptbxl import PTBXL
from ecgdiff.data.statements import CONDITIONS
from ecgdiff.errors import DataError, EcgDiffError
from ecgdiff.evaluation.condition_tables import condition_tables
from ecgdiff.evaluation.figures import figure
from ecgdiff.evaluation.journal import Row
from ecgdiff.evaluation.kept import keep
from ecgdiff.evaluation.outputs import check_file, check_folder
from ecgdiff.evaluation.paired_tables import paired_tables
from ecgdiff.evaluation.parquet import read_header, read_rows
from ecgdiff.evaluation.reading_figure import figure as reading_figure
from ecgdiff.evaluation.reading_report import report
from ecgdiff.evaluation.records import draw_conditions, draw_list, read_list
from ecgdiff.evaluation.running import CHOICES, evaluate
from ecgdiff.evaluation.shape_tables import shape_tables
from ecgdiff.evaluation.spectra_tables import absent, averaged, spectra_tables
from ecgdiff.evaluation.tables import collect, listed, page, tables
from ecgdiff.evaluation.tasks import TASKS
from ecgdiff.experiments.figure import write_figure


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    args = _parser().parse_args(arguments)
    try:
        print(args.do(args))
    except (EcgDiffError, ImportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; finished rows are kept, run again to go on", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ecgdiff.evaluation", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, text, options, do in (
        ("run", "compute rows; resumes where it was stopped", _run_options, evaluate),
        (
            "table",
            "errors, calibration (by condition, too), spectra and shape of a run",
            _table_options,
            _table,
        ),
        (
            "figure",
            "errors, calibration and spectra as one HTML page; needs plotly",
            _figure_options,
            _figure,
        ),
        ("readings", "what the classifier of a run reads; adds controls", _read_options, _read),
        ("keep", "write the rows of a run as small files to go on from", _keep_options, _keep),
        ("list", "draw a list of records", _list_options, _list),
    ):
        command = commands.add_parser(name, help=text, description=text)
        options(command)
        command.set_defaults(do=do)
    return parser


def _run_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--root", required=True, help="folder of PTB-XL 1.0.3 with records100/")
    add("--task", choices=CHOICES, default="paper", help="paper: leads and block (default)")
    add(
        "--sampler",
        action="append",
        default=[],
        metavar="NAME[.PRESET][:ARG=VALUE,...]",
        help="such as mgps or mgps:steps=300; repeat for more, leave out for the controls only",
    )
    add("--prior", help="name or folder of the prior (default: what each sampler needs)")
    add(
        "--precision",
        choices=["float32", "bfloat16"],
        default="float32",
        help="of the prior's matrix products; bfloat16 is faster where the processor has it",
    )
    add("--classifier", metavar="NAME", help="name or folder of one that reads every draw")
    add("--morphology", action="store_true", help="intervals and amplitudes; needs neurokit2")
    add(
        "--unet",
        action="append",
        default=[],
        metavar="FOLDER",
        help="a U-Net as a control, but for task noisy: they were trained with white noise only",
    )
    add("--draws", type=_positive, default=10, help="draws per record")
    add("--seed", type=int, default=0)
    add("--noise", type=float, default=0.02, help="noise added to the observation, mV")
    add("--records", default="fold10_100", help="name of a committed list or a JSON file")
    add("--limit", type=_positive, help="compute only the first records of the list")
    add("--batch", type=_positive, default=1, help="records per batch (each with all its draws)")
    add("--workers", type=_positive, default=1, help="processes, each with one thread")
    add(
        "--retry-failed",
        action="store_true",
        help="compute records again that failed, in part too",
    )
    add(
        "--no-controls",
        action="store_true",
        help="only the samplers, as when tuning them, and the U-Nets named with --unet",
    )
    add("--known", metavar="FOLDER", help="rows of `keep`, taken instead of computing them again")
    add("--device", default="cpu", help="cpu or cuda")
    add("--out", default="results", help="folder for the results")


def _table_options(parser: argparse.ArgumentParser) -> None:
    _shown_options(parser)
    add = parser.add_argument
    add("--format", choices=["markdown", "latex"], default="markdown")
    add("--out", help="the file to write (default: print)")


def _figure_options(parser: argparse.ArgumentParser) -> None:
    _shown_options(parser)
    add = parser.add_argument
    add("--out", default="figures.html", help="the file to write")
    _small_option(parser)


def _small_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--small",
        action="store_true",
        help="leave out plotly.js (5 MB), which the page then loads from its public address",
    )


def _shown_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("rows", type=Path, help="the folder of a run, or its rows.parquet")
    add("--task", choices=TASKS, help="only this one")
    add("--resamples", type=_positive, default=1000, help="bootstrap replicates")


def _read_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("rows", type=Path, help="the folder of a run with --classifier, or its rows.parquet")
    add("--root", required=True, help="folder of PTB-XL 1.0.3")
    add("--classifier", default="default", help="the one of the run (default: default)")
    add("--one-lead", default="lead_I", help="the one that reads lead I (default: lead_I)")
    add("--own", type=Path, metavar="ROWS", help="a run on fold 9, for thresholds per method")
    add("--reference", default="conditional", help="compare with this method, too")
    add("--task", choices=TASKS, help="only this one")
    add("--resamples", type=_positive, default=1000, help="bootstrap replicates")
    add("--format", choices=["markdown", "latex"], default="markdown")
    add("--out", type=Path, help="folder for readings.json, .html, and .md or .tex")
    _small_option(parser)


def _keep_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("rows", type=Path, help="the folder of a run, or its rows.parquet")
    add("--out", required=True, help="the folder for TASK/METHOD.parquet")
    add(
        "--method",
        action="append",
        default=[],
        help="only this one; repeat for more (default: all, also those that are quick to compute)",
    )
    add("--task", choices=TASKS, help="only this one")


def _list_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("file", help="the JSON file to write")
    add("--root", required=True, help="folder of PTB-XL 1.0.3")
    add("--fold", type=int, choices=[9, 10], default=10)
    add("--count", type=_positive, default=100, help="how many records")
    add("--seed", type=int, default=0)
    add("--other-than", metavar="LIST", help="a list whose patients are left out")
    add(
        "--conditions",
        action="store_true",
        help=f"all records with {', '.join(CONDITIONS)}, and others up to --count, instead of one "
        "record per patient",
    )


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{value} is not a positive number")
    return value


def _table(args: argparse.Namespace) -> str:
    if args.out is not None:
        check_file(args.out)
    rows, header = _rows(args), read_header(_file(args.rows))
    found = collect(rows, resamples=args.resamples)
    made = tables(found, header)
    made += paired_tables(rows, header, found, resamples=args.resamples)
    made += condition_tables(rows, header, found, resamples=args.resamples)
    made += spectra_tables(rows, header, resamples=args.resamples)
    made += shape_tables(rows, header, resamples=args.resamples)
    _say_what_is_absent(rows)
    text = page(made, header, latex=args.format == "latex")
    if args.out is None:
        return text
    Path(args.out).write_text(text, encoding="utf-8")
    return f"wrote {args.out}"


def _figure(args: argparse.Namespace) -> str:
    check_file(args.out)
    rows, count = _rows(args), listed(read_header(_file(args.rows)))
    made = figure(collect(rows, resamples=args.resamples), averaged(rows), count=count)
    write_figure(made, args.out, offline=not args.small)
    _say_what_is_absent(rows)
    return f"wrote {args.out}"


def _say_what_is_absent(rows: Sequence[Row]) -> None:
    if reason := absent(rows):
        print(f"note: {reason}", file=sys.stderr)


def _read(args: argparse.Namespace) -> str:
    if args.out is not None:
        check_folder(args.out)
    found = report(
        _file(args.rows),
        args.root,
        classifier=args.classifier,
        one_lead=args.one_lead,
        own=_file(args.own) if args.own else None,
        reference=args.reference,
        task=args.task,
        resamples=args.resamples,
    )
    for note in found.notes:
        print(f"note: {note}", file=sys.stderr)
    text = found.page(latex=args.format == "latex")
    if args.out is None:
        return text
    args.out.mkdir(parents=True, exist_ok=True)
    numbers = {
        "conditions": CONDITIONS,
        "reference": args.reference,
        "notes": found.notes,
        "about": found.about,
        "tasks": found.figures,
        "words": found.words,
        "own_thresholds": {
            task: {
                method: {rule: at.tolist() for rule, at in rules.items()}
                for method, rules in methods.items()
            }
            for task, methods in found.own.items()
        },
    }
    (args.out / "readings.json").write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    file: Path = args.out / ("readings.tex" if args.format == "latex" else "readings.md")
    file.write_text(text, encoding="utf-8")
    page: Path = args.out / "readings.html"
    write_figure(reading_figure(found.figures), page, offline=not args.small)
    return f"wrote {file}, {page} and {args.out / 'readings.json'}"


def _file(rows: Path) -> Path:
    return rows / "rows.parquet" if rows.is_dir() else rows


def _rows(args: argparse.Namespace) -> list[Row]:
    rows = [row for row in read_rows(_file(args.rows)) if args.task in (None, row["task"])]
    if not rows:
        raise DataError(f"{_file(args.rows)} holds no rows of task {args.task}.")
    return rows


def _keep(args: argparse.Namespace) -> str:
    check_folder(args.out)
    rows = _rows(args)
    labels = dict.fromkeys(row["method"] for row in rows)
    if unknown := [name for name in args.method if name not in labels]:
        raise DataError(
            f"{_file(args.rows)} holds no rows of {unknown[0]}; it has {', '.join(labels)}."
        )
    chosen = [row for row in rows if row["method"] in (args.method or labels)]
    files = keep(chosen, read_header(_file(args.rows)), args.out)
    return "\n".join(f"wrote {path}" for path in files)


def _list(args: argparse.Namespace) -> str:
    check_file(args.file)
    rows = PTBXL(args.root).rows((args.fold,))
    other = read_list(args.other_than) if args.other_than else None
    draw = draw_conditions if args.conditions else draw_list
    draw(rows, args.fold, args.count, args.seed, other).write(args.file)
    return f"wrote {args.file}"


if __name__ == "__main__":
    sys.exit(main())
