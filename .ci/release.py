"""`make release`: builds a release into dist/ and checks it; publishes and tags nothing. See docs/release.md."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"
# What a new user does first, in an empty folder of an empty environment.
FIRST_STEPS = """
from sklearn.datasets import load_digits
from sktda import NoisyLabelDetector

frame = load_digits(as_frame=True).frame[:600]
frame.loc[::10, "target"] = (frame.loc[::10, "target"] + 3) % 10
frame.to_csv("data.csv", index=False)
detector = NoisyLabelDetector().fit(frame.drop(columns="target"), frame["target"])
print(f"{(detector.labels_ == -1).sum()} of 600 rows named")
"""


def run(*command: str | Path, cwd: Path = ROOT, **environment: str) -> str:
    """What a command prints; its failure ends this program with all that it said."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}\nrelease: this failed")
    return done.stdout.strip()


def version_of(root: Path) -> str:
    """The version, which stands in sktda/__init__.py alone."""
    return re.search(r'^__version__ = "(.+)"$', (root / "sktda/__init__.py").read_text(), re.MULTILINE)[1]


def problems(root: Path) -> list[str]:
    """What keeps the checked out commit from being a release: texts that name another version, tree and tag."""
    version = version_of(root)
    found = []
    headings = re.findall(r"^## \[(.+?)\](.*)$", (root / "CHANGELOG.md").read_text(), re.MULTILINE)
    latest = next(((name, rest) for name, rest in headings if name != "Unreleased"), ("none", ""))
    if latest[0] != version or not re.fullmatch(r" - \d{4}-\d\d-\d\d", latest[1]):
        found.append(f"the latest version in CHANGELOG.md is {latest[0]}: write ## [{version}] - YYYY-MM-DD")
    if f"\nversion: {version}\n" not in (root / "CITATION.cff").read_text():
        found.append(f"CITATION.cff does not say version: {version}")
    if changed := run("git", "status", "--porcelain", cwd=root):
        found.append(f"the tree is not clean; commit or remove: {', '.join(changed.split()[1::2])}")
    tagged = run("git", "tag", "--list", f"v{version}", cwd=root)
    if tagged and run("git", "rev-list", "-n", "1", tagged, cwd=root) != run("git", "rev-parse", "HEAD", cwd=root):
        found.append(f"{tagged} is the tag of another commit: raise __version__ in sktda/__init__.py")
    return found


def versions(root: Path, site: str) -> list[dict[str, object]]:
    """Entries of the switcher of the docs: this version and those that have a tag, the latest first."""
    tags = run("git", "tag", "--list", "v*", "--sort=-version:refname", cwd=root).split()
    names = list(dict.fromkeys([version_of(root), *(tag[1:] for tag in tags)]))
    return [{"version": name, "url": f"{site}/{name}/", "preferred": name == names[0]} for name in names]


def install_and_use(wheel: Path, folder: Path) -> None:
    """The wheel in an environment with nothing else, used from a folder with nothing in it."""
    place = folder / "environment"
    venv.create(place, with_pip=True)
    programs = place / ("Scripts" if os.name == "nt" else "bin")
    python = programs / "python"
    constraint = ("--constraint", ROOT / "constraints.txt")
    run(python, "-m", "pip", "install", "--quiet", *constraint, f"{wheel}[shell,report]", cwd=folder)
    print(run(python, "-c", FIRST_STEPS, cwd=folder))
    print(run(programs / "sktda", "--version", cwd=folder))
    arguments = ["data.csv", "--target", "target", "--out", "clean.csv", "--report", "report.html"]
    print(run(programs / "sktda", "clean", *arguments, cwd=folder).splitlines()[0])
    run(programs / "sktda", "doctor", cwd=folder)
    for name in ("clean.csv", "report.html"):
        if not (folder / name).stat().st_size:
            sys.exit(f"release: {name} is empty")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--site", default="", help="address that the docs of all versions will lie under")
    site = parser.parse_args().site.rstrip("/")
    if found := problems(ROOT):
        sys.exit("\n".join(["release: not yet", *found]))
    version = version_of(ROOT)
    if DIST.exists() and any(DIST.iterdir()):
        sys.exit("release: dist/ is not empty; remove it")
    run(sys.executable, "-m", "build", "--outdir", DIST)  # the wheel from the sdist, so that both are tried
    wheel, archive = DIST / f"sktda-{version}-py3-none-any.whl", DIST / f"sktda-{version}.tar.gz"
    print(run(sys.executable, "-m", "twine", "check", "--strict", wheel, archive))
    with tempfile.TemporaryDirectory() as folder:
        install_and_use(wheel, Path(folder))
    run(sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "docs", DIST / "docs" / version, VERSIONED="1")
    (DIST / "docs" / "switcher.json").write_text(json.dumps(versions(ROOT, site), indent=2))
    print(f"dist/ holds {version}; what is left by hand: docs/release.md")


if __name__ == "__main__":
    main()
