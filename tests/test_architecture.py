"""The layout is a promise: imports point backwards, `import sktda` is light, public names are documented."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import sktda
import sktda.attribution
import sktda.cleaning
from sktda._lazy import lazy_names

ROOT = Path(sktda.__file__).parent
STAGE = {
    **dict.fromkeys(["containers", "seeds", "selection", "distributions", "devices", "findings", "noise", "files"], 0),
    "room": -1,
    "cluster": 0,
    **dict.fromkeys(["data", "images", "metrics", "tables", "weighting", "workers"], 1),
    "mapped": 2,
    "consensus": 2,
    **dict.fromkeys(["model", "patches", "pretrained"], 2),
    "engine": 3,
    **dict.fromkeys(["objectives", "cards"], 4),
    **dict.fromkeys(["attribution", "adversarial", "review"], 5),
    **dict.fromkeys(["alike", "cleaning"], 6),
    "displays": 7,
    "report": 8,
    **dict.fromkeys(["cli", "demo"], 9),
}
ROOMS = {  # of attribution/, by what a method needs
    **dict.fromkeys(["base", "cost", "progress"], 0),
    "features": 1,
    "predictions": 2,
    "gradients": 3,
    **dict.fromkeys(["dynamics", "runs", "trees"], 4),
    **dict.fromkeys(["several", "unlearning"], 5),
}
FREE = {"__init__", "_lazy", "__main__"}  # of the package itself
NUMPY_ONLY = ["selection", "distributions", "findings", "metrics", "noise", "room", "weighting"]
PACKAGES = [sktda, sktda.attribution, sktda.cleaning]
FILES = sorted(ROOT.rglob("*.py"))


def module_name(file):
    parts = ("sktda", *file.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def place(module):
    """First name below sktda: "cleaning" of "sktda.cleaning.pruner", "" of sktda itself."""
    return (module.split(".") + [""])[1]


def imports(source, module="", is_package=False):
    """Absolute names of all modules that a source imports, in functions too; public names of sktda as their module."""
    package = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parent, base] if base else parent)
            for alias in node.names:
                if base == "sktda" and alias.name in sktda.__all__:
                    yield getattr(sktda, alias.name).__module__
                elif base == "sktda" and not hasattr(sktda, alias.name):
                    yield f"sktda.{alias.name}"
                else:
                    yield base


def imports_of_modules(files):
    """(module, name that it imports) of all the files."""
    for file in files:
        module = module_name(file)
        for name in imports(file.read_text(encoding="utf-8"), module, file.name == "__init__.py"):
            yield module, name


def test_a_module_imports_only_earlier_stages_or_its_own_folder():
    own = {place(module_name(file)) for file in FILES} - FREE - {""}
    assert own == STAGE.keys() - {"demo"}, "STAGE here and the layout in DESIGN.md name every module"
    wrong = [
        f"{module} imports {name}"
        for module, name in imports_of_modules(FILES)
        if name.split(".")[0] == "sktda"
        and place(module) not in FREE | {""}
        and place(name) not in FREE | {"", place(module)}
        and STAGE[place(name)] >= STAGE[place(module)]
    ]
    assert wrong == []


def test_a_method_imports_only_earlier_rooms_or_its_own():
    def room(name):
        return name.split(".")[2] if name.startswith("sktda.attribution.") else None

    wrong = [
        f"{module} imports {name}"
        for module, name in imports_of_modules(sorted((ROOT / "attribution").rglob("*.py")))
        if room(module) and room(name) and room(name) != room(module) and ROOMS[room(name)] >= ROOMS[room(module)]
    ]
    assert wrong == []


def test_imports_are_found_in_every_form():
    source = (
        "import os, sktda.engine.kernel as k\nfrom . import base\nfrom ..data import slices\n"
        "from sktda import Holdout\ndef f():\n    from sktda.report import page\n"
    )
    assert list(imports(source, "sktda.cleaning.pruner")) == [
        "os",
        "sktda.engine.kernel",
        "sktda.cleaning",
        "sktda.data",
        "sktda.cleaning.base",
        "sktda.report",
    ]


def test_stage_zero_needs_numpy_and_scipy_only():
    found = imports_of_modules(file for file in FILES if place(module_name(file)) in NUMPY_ONLY)
    tops = {(module, name.split(".")[0]) for module, name in found}
    allowed = {"numpy", "scipy", "sktda", *sys.stdlib_module_names}
    assert [pair for pair in tops if pair[1] not in allowed] == []


@pytest.mark.parametrize("statement", ["import sktda", "import sktda.attribution", "import sktda.cli"])
def test_importing_loads_nothing_heavy(statement):
    heavy = "{'torch', 'sklearn', 'numpy', 'scipy', 'pandas', 'joblib', 'skorch', 'matplotlib'}"
    code = f"import sys\n{statement}\nprint(*sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == []


def test_what_needs_no_torch_does_not_load_it_and_the_front_door_loads_little_else():
    need_torch = {
        *("ContrastiveLoss", "FixedNegatives", "LightningRecorder", "LogitsLoss", "TorchModel", "TrainerRecorder"),
        *("TrajectoryRecorder", "head_of", "record_run", "retrain"),
    }
    names = ["NoisyLabelDetector", *sorted({*sktda.__all__} - need_torch - {"NoisyLabelDetector"})]
    code = f"""
import sys
import sklearn.base
import sktda
for name in {names}:
    before = len(sys.modules)
    getattr(sktda, name)
    if name == "NoisyLabelDetector" and ("sklearn.pipeline" in sys.modules or len(sys.modules) - before > 60):
        print(len(sys.modules) - before, "modules beside those of sklearn.base for", name)
    if "torch" in sys.modules:
        sys.exit(print(name))
from sktda import displays, report, review
from sktda.attribution import KernelForest, LabelPosterior, PrecomputedProbabilities, PrecomputedScores, RobustResidual
from sktda.cleaning import CCS, Candidates, CoresetStrategy, Hardest, RandomRows, Stratified, Top
for package in (displays, report, review):
    [getattr(package, name) for name in package.__all__]
print(*{{"torch", "skorch", "matplotlib"}} & set(sys.modules))  # the last is loaded by drawing only
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == []


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_every_public_name_resolves_and_is_documented(package):
    assert sorted(package.__all__) == package.__all__ == dir(package)
    for name in package.__all__:
        public = getattr(package, name)
        assert public.__name__ == name
        assert len(inspect.getdoc(public).splitlines()[0]) > 10
        if inspect.isclass(public):
            assert public.__doc__ != public.__mro__[1].__doc__, f"{name} only inherits a docstring"
    with pytest.raises(AttributeError, match=r"has no attribute 'Nothing'"):
        package.Nothing  # noqa: B018


def test_every_module_says_what_it_is_for():
    silent = [module_name(file) for file in FILES if not ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))]
    assert [module for module in silent if not module.endswith("__main__")] == []


def test_lazy_names_are_those_of_all():
    for package in PACKAGES:
        for name in package.__all__:
            assert importlib.import_module(getattr(package, name).__module__).__dict__[name] is getattr(package, name)


def test_nothing_prints_or_logs_but_the_shell():
    loud = [
        f"{module_name(file)}, line {node.lineno}"
        for file in FILES
        if place(module_name(file)) not in {"cli", "demo"}
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print")
        or (isinstance(node, ast.Import) and any(alias.name == "logging" for alias in node.names))
        or (isinstance(node, ast.arg) and node.arg == "verbose")
    ]
    assert loud == [], "estimators warn, and show progress by callbacks of scikit-learn"


def test_a_name_whose_package_is_missing_says_which_extra_brings_it(monkeypatch, tmp_path):
    for package in ("pandas", "dask", "unheard_of"):
        (tmp_path / f"needs_{package}.py").write_text(f"import {package}")
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.syspath_prepend(tmp_path)
    names = {"Table": "needs_pandas", "cluster": "needs_dask", "Other": "needs_unheard_of"}
    resolve, _ = lazy_names("sktda", names)
    with pytest.raises(ModuleNotFoundError, match=r'Table needs pandas; install it with: pip install "sktda\[shell\]"'):
        resolve("Table")
    with pytest.raises(ModuleNotFoundError, match=r"sktda\[cluster\]"):
        resolve("cluster")
    with pytest.raises(ModuleNotFoundError, match="unheard_of"):
        resolve("Other")
