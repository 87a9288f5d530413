"""`sktda doctor`: what is installed and what does not work, whatever the packages do when they are imported."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sktda.cli import doctor, packages
from sktda.cli.commands import app
from sktda.cli.packages import Package

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FOR_DEVELOPERS = {"benchmarks", "peers", "test", "docs"}


@pytest.fixture
def light(monkeypatch):
    """No package is imported: torch sees one card and pillow cannot be imported, pandas is too old, rich missing."""

    def tried(modules):
        found = {name: {"error": None, "more": {}} for name in modules}
        found["torch"]["more"] = {
            "threads": 3,
            "built_for_cuda": "13.0",
            "mps": False,
            "cuda": [{"name": "H100\x1b[2J", "bytes": 80 * 2**30}],
        }
        found["PIL"]["error"] = "OSError: libjpeg.so.8 is not there"
        return found

    monkeypatch.setattr(doctor, "try_imports", tried)
    versions = {"pandas": "1.5.3", "rich": None, "timm": None}
    monkeypatch.setattr(packages, "_version", lambda name: versions.get(name, "2999.1+cpu"))


def run(*arguments):
    return CliRunner().invoke(app, ["doctor", *arguments])


@pytest.mark.usefixtures("light")
def test_what_is_missing_too_old_or_broken_is_told_with_the_remedy():
    result = run()
    assert result.exit_code == 1
    assert re.search(r"^devices +cuda:0 H100\\x1b\[2J, 80 GiB; cpu .*CUDA 13.0.*is cuda$", result.stdout, re.MULTILINE)
    assert re.search(r"^threads +3 of torch", result.stdout, re.MULTILINE)
    assert re.search(r"^pandas +1\.5\.3 too old +>= 2\S* +\S.*shell +tables", result.stdout, re.MULTILINE)
    assert re.search(r"^timm +missing +- ", result.stdout, re.MULTILINE)
    assert re.search(r"^rich +missing .*shell", result.stdout, re.MULTILINE)
    problems = [line for line in result.stdout.splitlines() if line.startswith("Problem:")]
    assert len(problems) == 2, "what is merely missing is no problem"
    assert any(
        re.search(r'pandas 1\.5\.3 is older than 2.*pip install --upgrade "pandas>=2', line) for line in problems
    )
    assert any("pillow" in line and "libjpeg.so.8" in line for line in problems)


@pytest.mark.usefixtures("light")
def test_json_holds_the_same():
    found = json.loads(run("--json").stdout)
    assert found["torch"]["auto"] == "cuda"
    assert found["machine"]["processors"] > 0
    by_name = {package["name"]: package for package in found["packages"]}
    assert by_name["torch"].items() >= {"state": "ok", "needs": "2.6", "extra": "sktda"}.items()
    assert by_name["pillow"]["state"] == "broken"
    assert len(found["problems"]) == 2


@pytest.mark.usefixtures("light")
def test_a_table_is_shown_where_rich_cannot_be_imported(monkeypatch):
    monkeypatch.setitem(sys.modules, "rich.table", None)
    assert re.search(r"^pandas  1\.5\.3 too old", run().stdout, re.MULTILINE)


@pytest.mark.usefixtures("light")
def test_a_cache_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert re.search(r"^cache .*sktda, cannot be written", run().stdout, re.MULTILINE)
    monkeypatch.setenv("XDG_CACHE_HOME", "~nobody-of-this-name/cache")
    assert re.search(r"^cache .*cannot be written", run().stdout, re.MULTILINE)


def test_a_need_that_is_missing_is_a_problem_and_an_option_is_none():
    missing = {"module": "m", "use": "u", "needs": "2"}
    assert "nothing works without it" in Package("torch", packages.CORE, **missing).problem()
    assert Package("timm", packages.ALONE, **missing).problem() is None


def test_versions_are_compared_as_numbers():
    assert packages.release("2.13.0+cpu") == packages.release("2.13") > packages.release("2.6")
    assert packages.release("1.9.0rc1") == packages.release("1.9")
    assert packages.release("unknown") == ()


def test_every_package_that_users_get_is_listed_with_its_use():
    assert set(packages.EXTRAS) == PROJECT["optional-dependencies"].keys() - FOR_DEVELOPERS
    wanted = [PROJECT["dependencies"], *(PROJECT["optional-dependencies"][extra] for extra in packages.EXTRAS)]
    names = {re.match(r"[\w.-]+", each)[0] for group in wanted for each in group}
    assert names <= packages.USES.keys()


def test_a_folder_that_is_not_installed_is_told(monkeypatch):
    def unknown(name):
        raise packages.PackageNotFoundError(name)

    monkeypatch.setattr(packages, "requires", unknown)
    result = run()
    assert result.exit_code == 1
    assert "is not installed, so what it needs is unknown" in result.stdout


def test_imports_that_fail_print_hang_or_die_are_told_and_the_others_tried(tmp_path, monkeypatch):
    for name, code in {
        "raises": "raise ImportError('no library of that name')",
        "prints": "print('{hello'); import os; os.system('echo hello')",
        "leaves": "raise SystemExit(0)",
        "dies": "import os; os._exit(7)",
        "hangs": "import time; time.sleep(60)",
        "torch": "version = cuda = 1",  # not what its name says: an error, and no crash
        "fine": "",
    }.items():
        (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    order = ["raises", "prints", "dies", "leaves", "hangs", "torch", "fine"]
    errors = {name: of["error"] for name, of in doctor.try_imports(order, seconds=3).items()}
    assert errors["raises"] == "ImportError: no library of that name"
    assert errors["dies"] == "it ends Python, exit status 7"
    assert errors["hangs"] == "no answer in 3 seconds"
    assert errors["leaves"].startswith("SystemExit")
    assert errors["torch"].startswith("AttributeError")
    assert errors["prints"] is errors["fine"] is None


def test_doctor_itself_loads_nothing_heavy():
    code = "import sys; import sktda.cli.doctor; print(*sorted({'torch', 'numpy', 'pandas'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == []
