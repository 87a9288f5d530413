"""Settings of an optimiser that change while a training goes on."""

import torch

from sktda.model.step_settings import BY_STEP, StepSettings, at_step, settings


def test_what_changed_is_known_at_every_step_and_after_going_on():
    group = {
        "params": [object()],
        "lr": 0.1,
        "betas": (0.9, 0.999),
        "eps": torch.tensor(0.5),
        "fused": None,
        "name": "a",
    }
    betas = [(0.9, 0.999), (0.9, 0.999), (0.8, 0.999), (0.9, 0.999)]
    noted = StepSettings()
    for step, pair in enumerate(betas):
        noted.note(step, [group | {"betas": pair, "lr": 0.1 * step}])
        if step == 1:
            early = [settings(group) | noted.described(0, 2)]
            assert early == [{"lr": 0.1, "betas": [0.9, 0.999], "eps": 0.5, "fused": None}]
    described = [settings(group) | noted.described(0, 4)]
    assert described[0][BY_STEP] == {"betas": [list(pair) for pair in betas]}
    assert [at_step(described, step)[0]["betas"] for step in range(4)] == [list(pair) for pair in betas]

    again = StepSettings.of(early, 2)  # a run that is resumed after two steps
    for step in (2, 3):
        again.note(step, [group | {"betas": betas[step]}])
    assert again.described(0, 4) == noted.described(0, 4)
