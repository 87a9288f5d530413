"""The example of two stages: Source names the stage that did the harm, in both orders, and what it prints is so."""

import re

import pytest

from tests.scripts import run_example

STAGES = ["pre-training", "fine-tuning"]


@pytest.fixture(scope="module")
def sections():
    """What one run prints: of each order of the stages, and of forgetting."""
    return run_example("two_stages").strip().split("\n\n")


def numbers(line: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?\b\d+\.?\d*", line)]


@pytest.mark.parametrize("harmed", [0, 1])
def test_source_names_the_stage_that_did_the_harm(sections, harmed):
    title, _, *by_stage, verdict = sections[harmed].splitlines()
    assert STAGES[harmed] in title
    for stage, line in enumerate(by_stage):
        harmful, wrong, found, cost = numbers(line)
        if stage == harmed:
            assert wrong == numbers(title)[0]
            assert found > 0.85 * wrong
            assert found > 0.5 * harmful  # at a share of a fifth of the rows
            assert cost > 3 * numbers(by_stage[1 - stage])[3]
        else:
            assert wrong == found == 0
    assert f"names {STAGES[harmed]}:" in verdict
    before, after = numbers(verdict)
    assert after < before


def test_a_longer_second_stage_forgets_the_first(sections):
    epochs, predicted, measured = zip(*(numbers(line) for line in sections[2].splitlines()[2:]), strict=True)
    assert epochs == (1, 4, 16, 64)
    for costs in (predicted, measured):
        assert list(costs) == sorted(costs, reverse=True)
        assert costs[-1] < 0.1 * costs[0]
    for some, true in zip(predicted[:3], measured, strict=False):
        assert 1 < some / true < 5  # single rows add up to more than all of them together
