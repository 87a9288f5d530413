"""The example of a generative model runs, and says of known rows what is known."""

import re
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[1] / "examples" / "diffusion.py"


def test_the_example_runs_and_draws(tmp_path):
    command = [sys.executable, str(EXAMPLE), "picture.png", "--quick"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=True)
    assert (tmp_path / "picture.png").stat().st_size > 10_000
    assert "3 runs on 200 images" in done.stdout
    tables = re.findall(r"^(Mean influence.*|Squared Wasserstein.*)\n.*\n((?:  .*\n){8})", done.stdout, re.MULTILINE)
    assert len(tables) == 3
    values = [[float(line.split()[3]) for line in lines.splitlines()] for _, lines in tables]
    assert values[0] == sorted(values[0], reverse=True)
    assert values[1] == sorted(values[1])
    assert values[2] == sorted(values[2], reverse=True)
    assert min(values[2]) > 0
    ranks = [int(rank) for rank in re.search(r"as they are +([\d ]+)", done.stdout).group(1).split()]
    assert len(ranks) == 8
