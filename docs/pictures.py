"""The pictures of the pages: python docs/pictures.py [page ...] writes docs/_static/*.png.

A line `![what it shows](_static/name.png)` in a page is the last figure that the page's own blocks above have drawn.
The report and the page of a review are looked at in headless Chromium, by way of selenium.
"""

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

DOCS = Path(__file__).parent
STATIC = DOCS / "_static"
PART = re.compile(r"^```(python|shell)\n(.*?)^```$|^!\[[^\n]+\]\(_static/([\w-]+)\.png\)$", re.MULTILINE | re.DOTALL)


def draw(page: Path) -> None:
    """Run the blocks of a page up to its last picture, and save the pictures."""
    parts = PART.findall(page.read_text(encoding="utf-8"))
    last = max((i for i, (*_, name) in enumerate(parts) if name), default=-1)
    names = {"__name__": "page"}
    for language, code, name in parts[: last + 1]:
        if name and plt.get_fignums():  # else another page draws it
            save(name)
        elif name:
            continue
        elif language == "python":
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(code, page.name, "exec"), names)
        else:
            for line in code.replace("\\\n", " ").splitlines():
                subprocess.run([sys.executable, "-m", *shlex.split(line)], check=True, capture_output=True)


def save(name: str) -> None:
    """The current figure, in few colours: a page loads several."""
    buffer = io.BytesIO()
    plt.gcf().savefig(buffer, dpi=110)
    plt.close("all")
    shrink(buffer, name)


def shrink(picture: io.BytesIO, name: str) -> None:
    Image.open(picture).convert("RGB").quantize(128).save(STATIC / f"{name}.png", optimize=True)


def digits() -> list[str]:
    """A file of digits of which every tenth has a wrong label; returns how to call the shell."""
    found = load_digits()
    y = found.target.copy()
    y[::10] = (y[::10] + 3) % 10
    np.savez("digits.npz", X=found.images, y=y)
    return [sys.executable, "-m", "sktda"]


def report() -> None:
    subprocess.run([*digits(), "clean", "digits.npz", "--out", "clean.npz", "--report", "report.html"], check=True)
    suspects = "[...document.querySelectorAll('h2')].find((e) => /suspicious/.test(e.textContent)).scrollIntoView()"
    screenshot("report.html", {"report": (1000, ""), "report-suspects": (800, suspects)})


def review() -> None:
    subprocess.run([*digits(), "review", "digits.npz", "--out", "review.html"], check=True)
    screenshot("review.html", {"review": (900, "")})


def screenshot(page: str, pictures: dict[str, tuple[int, str]]) -> None:
    """The page in a window 1,000 pixels wide: (height, a script that goes to the place) by the name of the picture."""
    sys.path.insert(0, str(DOCS.parent))
    from tests.browser import look, started

    browser = started(Path.cwd())
    look(browser, Path(page).resolve())
    for name, (height, place) in pictures.items():
        metrics = {"width": 1000, "height": height, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        browser.execute_script(place)
        shrink(io.BytesIO(browser.get_screenshot_as_png()), name)
    browser.quit()


PAGES_OF_A_BROWSER = {"report": report, "review": review}

if __name__ == "__main__":
    pages = sys.argv[1:] or [path.stem for path in sorted(DOCS.glob("*.md"))]
    os.environ["PYTHONPATH"] = str(DOCS.parent)
    for page in pages:
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            if page in PAGES_OF_A_BROWSER:
                PAGES_OF_A_BROWSER[page]()
            else:
                draw(DOCS / f"{page}.md")
            os.chdir(DOCS)
