"""The benchmark of an accelerator, counted on the simulated one: what a method asks does not grow with the rows."""

import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from shared import gpu
from shared.gpu_rows import SMALL, Row, rows


@pytest.mark.parametrize("kind", ["gap", "neighbours"])
def test_counts_are_the_same_for_twice_the_rows(kind, counting, monkeypatch, tmp_path):
    chosen = [row for row in rows(SMALL) if row.kind == kind]
    monkeypatch.setattr(gpu, "rows", lambda sizes: [Row("broken", kind, (), "fp32"), *chosen])
    gpu.gpu_part(True, tmp_path, 0.0, None)
    broken, few, many = json.loads((tmp_path / "gpu_simulated.json").read_text())["rows"]
    assert broken["status"].startswith("failed: ")  # and the others had their turn
    for name in ("kernels", "syncs", "uploads", "downloads"):
        assert few[name] == many[name]
    assert few["kernels"] > 0
    assert few["uploaded"] < many["uploaded"] <= 2 * few["uploaded"]
