"""The picture of the README, made by its own lines: python docs/found.py writes docs/_static/found.png."""

import re
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from sktda.displays import SuspectGalleryDisplay

DOCS = Path(__file__).parent
README = (DOCS.parent / "README.md").read_text(encoding="utf-8")

names: dict = {}
exec(re.search(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)[1], names)
detector, images = names["detector"], names["digits"].images
display = SuspectGalleryDisplay.from_detector(detector, images, n_rows=20, n_columns=10)
display.figure_.savefig(DOCS / "_static" / "found.png", dpi=80)
