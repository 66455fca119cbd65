"""Check the budgets of ecgdiff/ (size, docstrings, types): `check_budgets.py [REPOSITORY]`."""

import ast
import statistics
import sys
from pathlib import Path

FILE_MEDIAN, FILE_MAX = 150, 400
FUNCTION_MEDIAN, FUNCTION_MAX = 12, 60
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def unannotated(function: ast.FunctionDef, in_class: bool) -> list[str]:
    a = function.args
    given = [*a.posonlyargs, *a.args]
    static = any(getattr(d, "id", "") == "staticmethod" for d in function.decorator_list)
    given = given[1:] if in_class and not static else given
    given += [*a.kwonlyargs, *filter(None, (a.vararg, a.kwarg))]
    missing = [argument.arg for argument in given if argument.annotation is None]
    return missing + ([] if function.returns else ["return"])


def public_problems(body: list[ast.stmt], where: str, in_class: bool = False) -> list[str]:
    found = []
    for node in body:
        if isinstance(node, (ast.If, ast.Try)):
            found += public_problems(node.body + node.orelse, where, in_class)
        if not isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            continue
        magic = node.name.startswith("__")
        marks = {ast.unparse(d).split(".")[-1] for d in node.decorator_list}
        if node.name.startswith("_") and not magic:
            continue
        if not (magic or marks & {"overload", "setter"} or ast.get_docstring(node)):
            found.append(f"{where}:{node.lineno}: {node.name} has no docstring")
        if isinstance(node, ast.ClassDef):
            found += public_problems(node.body, where, in_class=True)
        elif missing := unannotated(node, in_class):
            found.append(f"{where}:{node.lineno}: {node.name} lacks types: {', '.join(missing)}")
    return found


def check(root: Path) -> list[str]:
    """Return one line per broken budget of the tree under `root`/ecgdiff."""
    found, files, functions = [], [], []
    for path in sorted((root / "ecgdiff").rglob("*.py")):
        text, where = path.read_text(encoding="utf-8"), path.relative_to(root).as_posix()
        tree = ast.parse(text)
        files.append((len(text.splitlines()), where))
        nodes = [node for node in ast.walk(tree) if isinstance(node, FUNCTIONS)]
        functions += [(n.end_lineno - n.lineno + 1, f"{where}:{n.lineno} {n.name}") for n in nodes]
        if not ast.get_docstring(tree) and text.strip():
            found.append(f"{where}: no module docstring")
        if not (path.stem.startswith("_") and path.stem != "__init__"):
            found += public_problems(tree.body, where)
    for kind, sizes, median, most in (
        ("file", files, FILE_MEDIAN, FILE_MAX),
        ("function", functions, FUNCTION_MEDIAN, FUNCTION_MAX),
    ):
        too_long = [(n, name) for n, name in sizes if n > most]
        found += [f"{name}: {n} lines, a {kind} has at most {most}" for n, name in too_long]
        middle = statistics.median(n for n, _ in sizes) if sizes else float("inf")
        print(f"{len(sizes)} {kind}s, median {middle:g} lines (at most {median})")
        if middle > median:
            found.append(f"ecgdiff: the median {kind} has {middle:g} lines, at most {median}")
    return found


if __name__ == "__main__":
    problems = check(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
    print("\n".join(problems) or "budgets kept")
    sys.exit(bool(problems))
