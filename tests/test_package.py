"""What is built and released: the wheel works without the checkout, and what it says of itself is true."""

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from sktda import __version__
from sktda.cli.packages import USES, release

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FOR_DEVELOPERS = {"benchmarks", "peers", "test", "docs"}
WITH_OTHERS = {"dask", "markupsafe", "huggingface_hub", "tokenizers", "pytorch_lightning"}  # come with packages of USES
CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def python(*arguments, cwd, **environment):
    environment = os.environ | environment
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Folder of wheel and sdist, made with the hatchling of this environment."""
    folder = tmp_path_factory.mktemp("built")
    python("-m", "hatchling", "build", "--directory", folder, cwd=ROOT)
    return folder


@pytest.fixture(scope="module")
def wheel(built):
    (path,) = built.glob("*.whl")
    return path


def metadata(wheel):
    """(headers, README) as a package index has them."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        return archive.read(name).decode().split("\n\n", 1)


def test_wheel_and_sdist_hold_the_package_and_nothing_else(built, wheel):
    here = {path.relative_to(ROOT).as_posix() for path in (ROOT / "sktda").rglob("*") if path.is_file()}
    here = {name for name in here if "__pycache__" not in name}
    assert {"sktda/py.typed", "sktda/report/page.html.j2", "sktda/review/page.js", "sktda/cards/base.css"} <= here
    with zipfile.ZipFile(wheel) as archive:
        files = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert files == here
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    around = {"README.md", "CHANGELOG.md", "CITATION.cff", "LICENSE", "pyproject.toml", "PKG-INFO", ".gitignore"}
    assert names == here | around


def test_the_wheel_works_without_the_checkout(wheel, tmp_path):
    site, work = tmp_path / "site", tmp_path / "work"
    work.mkdir()
    python("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", site, wheel, cwd=work)
    rows = "".join(f"{i % 7},{i * i % 13},{'xy'[(i % 7 > 3) ^ (i % 9 == 4)]}\n" for i in range(60))
    (work / "data.csv").write_text(f"a,b,label\n{rows}")
    program = """
import sys, sktda
from sktda.cli.commands import app
print(sktda.__file__)
app(["--version"], standalone_mode=False)
app(["clean", "data.csv", "-t", "label", "-o", "clean.csv", "--report", "report.html", "--no-comparison"])
"""
    printed = python("-P", "-c", program, cwd=work, PYTHONPATH=str(site)).splitlines()
    assert Path(printed[0]) == site / "sktda" / "__init__.py"
    assert printed[1] == f"sktda {__version__}"
    assert {path.name for path in work.iterdir()} == {"data.csv", "clean.csv", "report.html"}
    assert (site / "bin" / "sktda").exists() or (site / "Scripts" / "sktda.exe").exists()


def test_the_readme_of_the_index_has_code_as_here_and_no_link_that_leads_nowhere(wheel):
    headers, text = metadata(wheel)
    assert CODE.findall(text) == CODE.findall(README)
    source = PROJECT.get("urls", {}).get("Source")
    targets = re.findall(r"\]\(([^)\s]*)\)", CODE.sub("", text))
    assert [target for target in targets if not target.startswith("https://")] == []
    links = re.findall(r"\]\(([^)\s]*)\)", CODE.sub("", README))
    relative = [target for target in links if not target.startswith("https://")]
    if source:
        assert all(any(target.startswith(source) and target.endswith(each) for target in targets) for each in relative)
    else:
        assert len(targets) == len(links) - len(relative)
    assert f"\nVersion: {__version__}\n" in headers


def test_every_import_is_of_a_package_that_is_named():
    known = {module for module, _ in USES.values()} | WITH_OTHERS | {"sktda", *sys.stdlib_module_names}
    unknown = {
        (file.name, name.split(".")[0])
        for file in (ROOT / "sktda").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module]
            if isinstance(node, ast.ImportFrom) and node.module and not node.level
            else []
        )
        if name.split(".")[0] not in known
    }
    assert unknown == set()


def test_the_lowest_versions_are_those_that_make_minimum_tests():
    text = (ROOT / "constraints-minimum.txt").read_text(encoding="utf-8")
    tested = dict(re.findall(r"^([\w.-]+)==([\w.]+)$", text, re.MULTILINE))
    extras = [needs for name, needs in PROJECT["optional-dependencies"].items() if name not in FOR_DEVELOPERS]
    named = {}
    for requirement in [*PROJECT["dependencies"], *(each for needs in extras for each in needs)]:
        name, lowest = re.fullmatch(r"([\w-]+)(?:\[\w+\])?>=([\w.]+)", requirement).groups()
        assert named.setdefault(name, lowest) == lowest, f"{name} has two lowest versions"
    different = {name for name, lowest in named.items() if release(tested[name]) != release(lowest)}
    assert different == {"torch"}, "of torch no older wheel for processors is in the index"


# ---- make release --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def releasing():
    spec = importlib.util.spec_from_file_location("release_script", ROOT / ".ci" / "release.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def git(*arguments, cwd):
    who = {
        f"GIT_{role}_{what}": "someone@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    subprocess.run(["git", *arguments], cwd=cwd, env=os.environ | who, check=True, capture_output=True)


def test_a_release_is_refused_for_another_version_a_used_tag_and_changed_files(releasing, tmp_path):
    (tmp_path / "sktda").mkdir()
    (tmp_path / "sktda/__init__.py").write_text('"""Doc."""\n\n__version__ = "1.2.0"\n')
    (tmp_path / "CITATION.cff").write_text("title: sktda\nversion: 1.1.0\nlicense: x\n")
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## [Unreleased]\n\n## [1.1.0] - 2026-01-01\n")
    git("init", "-q", cwd=tmp_path)
    git("add", ".", cwd=tmp_path)
    git("commit", "-qm", "one", cwd=tmp_path)
    git("tag", "v1.1.0", cwd=tmp_path)
    git("tag", "v1.2.0", cwd=tmp_path)
    texts = " ".join(releasing.problems(tmp_path))
    assert "CHANGELOG.md is 1.1.0" in texts
    assert "CITATION.cff does not say version: 1.2.0" in texts
    (tmp_path / "CITATION.cff").write_text("title: sktda\nversion: 1.2.0\nlicense: x\n")
    (tmp_path / "CHANGELOG.md").write_text("## [Unreleased]\n\n## [1.2.0] - 2026-02-03\n\n## [1.1.0] - 2026-01-01\n")
    assert releasing.problems(tmp_path) == ["the tree is not clean; commit or remove: CHANGELOG.md, CITATION.cff"]
    git("commit", "-qam", "two", cwd=tmp_path)
    assert releasing.problems(tmp_path) == [
        "v1.2.0 is the tag of another commit: raise __version__ in sktda/__init__.py"
    ]
    git("tag", "-f", "v1.2.0", cwd=tmp_path)
    assert releasing.problems(tmp_path) == []
    assert releasing.versions(tmp_path, "https://example.org/docs") == [
        {"version": "1.2.0", "url": "https://example.org/docs/1.2.0/", "preferred": True},
        {"version": "1.1.0", "url": "https://example.org/docs/1.1.0/", "preferred": False},
    ]


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__
    assert {"cff-version", "message", "title", "authors", "license"} <= citation.keys()


def test_the_workflow_runs_what_ci_runs_on_every_python_that_is_named_and_forms_are_whole():
    folder = ROOT / ".github"
    jobs = yaml.safe_load((folder / "workflows" / "test.yml").read_text(encoding="utf-8"))["jobs"]
    assert {"run": "bash .ci/run"} in jobs["test"]["steps"]
    named = {line.rpartition(" ")[2] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)}
    assert named <= set(jobs["test"]["strategy"]["matrix"]["python"])
    for form in (folder / "ISSUE_TEMPLATE").glob("[!c]*.yml"):
        content = yaml.safe_load(form.read_text(encoding="utf-8"))
        assert {"name", "description", "body"} <= content.keys(), form.name
        assert all(
            part["type"] in {"textarea", "checkboxes"} and part["attributes"]["label"] for part in content["body"]
        )


def test_the_weights_of_the_page_are_those_that_were_measured():
    rows = json.loads((ROOT / "benchmarks/results/weights.json").read_text(encoding="utf-8"))["rows"]
    page = (ROOT / "docs/install.md").read_text(encoding="utf-8")
    shown = dict(re.findall(r"^\| `\[?(\w+)\]?` \| (\d+) \|", page, re.MULTILINE))
    assert shown == {row["extra"]: str(round(row["mib"])) for row in rows}
