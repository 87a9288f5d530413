"""What the source of a checkout says of its layout: counted in its files, without running it."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path
from statistics import median

LONG = 350  # lines
LOOKUPS = ("peel", "trained_net", "ends_frozen", "part_of")  # functions that looked into an estimator, one by one
PROBED = (
    *("uses_validation", "scores_features", "needs_gradients", "needs_trajectory", "needs_probabilities"),
    *("default_net_settings", "with_members", "loo_decision_", "objectives_", "needs"),
)
"""Properties that attributors are asked for."""


def counted(root: Path, every: int = 1) -> dict[str, float]:
    """{what: number} of the modules of sktda below a folder; every = 10: of each tenth."""
    paths = sorted((root / "sktda").rglob("*.py"))[::every]
    sources = {path: path.read_text(encoding="utf-8") for path in paths}
    trees = {path: ast.parse(source) for path, source in sources.items()}
    lines = [line_kinds(sources[path], trees[path]) for path in sources]
    code, comments = sum(each[0] for each in lines), sum(each[1] for each in lines)
    calls = [node for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return {
        "modules": len(sources),
        f"modules above {LONG} lines": sum(len(source.splitlines()) > LONG for source in sources.values()),
        "lines": sum(len(source.splitlines()) for source in sources.values()),
        "lines of code": code,
        "comment lines per hundred lines of code": round(100 * comments / code, 1),
        "isinstance(..., FrozenEstimator)": sum(asks_frozen(call) for call in calls),
        "other looks into an estimator": sum(name_of(call.func) in LOOKUPS or is_given(call.func) for call in calls),
        "getattr and hasattr of attributors": sum(map(probes, calls)),
        "raise NotImplementedError": sum(source.count("raise NotImplementedError") for source in sources.values()),
        **{f"files of sktda that know one {kind}": number for kind, number in registries(root, trees).items()},
    }


def line_kinds(source: str, tree: ast.AST) -> tuple[int, int]:
    """(lines with code, lines with a comment); a docstring is neither."""
    code: set[int] = set()
    comments: set[int] = set()
    skip = {tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            comments.add(token.start[0])
        elif token.type not in skip:
            code.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            code.difference_update(range(node.lineno, node.end_lineno + 1))
    return len(code), len(comments)


def name_of(node: ast.AST) -> str:
    """The last name of a dotted expression."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def is_given(function: ast.AST) -> bool:
    """Whether this is `GivenModel.of`."""
    return isinstance(function, ast.Attribute) and function.attr == "of" and name_of(function.value) == "GivenModel"


def asks_frozen(call: ast.Call) -> bool:
    if name_of(call.func) != "isinstance" or len(call.args) != 2:
        return False
    return any(name_of(node) == "FrozenEstimator" for node in ast.walk(call.args[1]))


def probes(call: ast.Call) -> bool:
    """Whether a getattr or hasattr asks an attributor, or asks for what attributors declare."""
    if name_of(call.func) not in {"getattr", "hasattr"} or len(call.args) < 2:
        return False
    asked = call.args[1].value if isinstance(call.args[1], ast.Constant) else ""
    return "attributor" in name_of(call.args[0]) or asked in PROBED


def registries(root: Path, trees: dict[Path, ast.AST]) -> dict[str, float]:
    """{kind: files of sktda that name one of its kind in code, the file that defines it among them; the median}."""
    classes = {
        node.name: path for path, tree in trees.items() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)
    }
    words = {path: names_in(tree) for path, tree in trees.items()}
    public = words_of(trees, root / "sktda" / "attribution" / "__init__.py")
    displays = {name for name in classes if name.endswith("Display")}
    objectives = {
        name for name, path in classes.items() if path.name == "objectives.py" and path.parent.name == "sktda"
    } & set(re.findall(r"sktda\.objectives\.(\w+)", (root / "docs" / "api.md").read_text(encoding="utf-8")))
    kinds: dict[str, set[str]] = {
        "method": public & set(classes),
        "objective": objectives,
        "layer": {"Conv2d", "Embedding", "EmbeddingBag", "Conv1d"},
        "file format": {".parquet", ".npz", ".csv"},
        "display": displays,
    }
    found = {}
    for kind, names in kinds.items():
        counts = [sum(name in own for own in words.values()) for name in names]
        counts = [count for count in counts if count]
        found[kind] = float(median(counts)) if counts else 0.0
    return found


def words_of(trees: dict[Path, ast.AST], path: Path) -> set[str]:
    return names_in(trees[path]) if path in trees else set()


def names_in(tree: ast.AST) -> set[str]:
    """Names, attributes, imported names and whole texts of a module; not what a docstring mentions."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute):
            found.add(name_of(node))
        elif isinstance(node, ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.ImportFrom):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
    return found
