"""Check the directions of import in ecgdiff/: `python .ci/check_imports.py [REPOSITORY]`."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

# What each low layer may import of ecgdiff besides itself.
BASE = {"errors", "random"}
MAY = {
    "diffusion": BASE,
    "operators": BASE,
    "models": BASE,
    "samplers": BASE | {"diffusion", "operators"},
    "ecg": {"errors"},
}
# Modules that only the named importers (and they themselves) may import.
ONLY_BY = {
    "ecgdiff.cli": ("ecgdiff.__main__",),
    "ecgdiff.report": ("ecgdiff.cli",),
    "ecgdiff.operators.images": (),
    "pytorch_lightning": ("ecgdiff.lightning", "ecgdiff.cli"),
    "jsonargparse": ("ecgdiff.lightning", "ecgdiff.cli"),
    "lightning": (),
    "plotly": ("ecgdiff.plot.plotly", "ecgdiff.experiments.figure"),
}
ECG_MAY = {"numpy", "scipy", "ecgdiff", *sys.stdlib_module_names}
ECG_LAZY = {"wfdb"}


def inside(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def imports(tree: ast.AST, package: str, lazy: bool = False) -> Iterator[tuple[int, str, bool]]:
    """Yield line, absolute dotted name and whether it runs only when a function is called."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*(parents if node.level else []), *filter(None, [node.module])])
            yield from ((node.lineno, f"{base}.{alias.name}", lazy) for alias in node.names)
        is_function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        yield from imports(node, package, lazy or is_function)


def broken(module: str, target: str, lazy: bool) -> str | None:
    """Return the rule that the import of `target` by `module` breaks, or None."""
    layer, top = module.split(".")[1:2], target.split(".")[0]
    for package, importers in ONLY_BY.items():
        if inside(target, package) and not any(inside(module, p) for p in (package, *importers)):
            return f"only {', '.join(importers) or 'nobody inside'} may import {package}"
    if layer and layer[0] in MAY and top == "ecgdiff":
        allowed = MAY[layer[0]] | {layer[0]}
        if target == "ecgdiff" or target.split(".")[1] not in allowed:
            return f"{layer[0]} may import of ecgdiff only {', '.join(sorted(allowed))}"
    lazy = lazy and inside(module, "ecgdiff.ecg.io")
    if inside(module, "ecgdiff.ecg") and top not in ECG_MAY | (ECG_LAZY if lazy else set()):
        return "ecg imports numpy and scipy; its readers import wfdb inside functions"
    return None


def check(root: Path) -> list[str]:
    """Return one line per import under `root`/ecgdiff that goes the wrong way."""
    found = []
    for path in sorted((root / "ecgdiff").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        package = ".".join(parts[:-1])
        module = package if parts[-1] == "__init__" else ".".join(parts)
        for line, target, lazy in imports(ast.parse(path.read_text(encoding="utf-8")), package):
            if rule := broken(module, target, lazy):
                found.append(f"{path.relative_to(root)}:{line}: imports {target}: {rule}")
    return found


if __name__ == "__main__":
    problems = check(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
    print("\n".join(problems) or "import directions kept")
    sys.exit(bool(problems))
