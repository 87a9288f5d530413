"""The example of a generative model runs, and says of known rows what is known."""

import re

from tests.scripts import run_example


def test_the_example_runs_and_draws(tmp_path):
    text = run_example("diffusion", tmp_path / "picture.png", "--quick")
    assert (tmp_path / "picture.png").stat().st_size > 10_000
    assert "3 runs on 200 images" in text
    tables = re.findall(r"^(Mean influence.*|Squared Wasserstein.*)\n.*\n((?:  .*\n){8})", text, re.MULTILINE)
    assert len(tables) == 3
    values = [[float(line.split()[3]) for line in lines.splitlines()] for _, lines in tables]
    assert values[0] == sorted(values[0], reverse=True)
    assert values[1] == sorted(values[1])
    assert values[2] == sorted(values[2], reverse=True)
    assert min(values[2]) > 0
    ranks = [int(rank) for rank in re.search(r"as they are +([\d ]+)", text).group(1).split()]
    assert len(ranks) == 8
