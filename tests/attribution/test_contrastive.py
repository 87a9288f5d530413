"""Losses in which the pairs of a batch meet: values against brute force, and a refusal where rows are taken apart."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNet
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset

from sktda import Holdout, InfluencePruner, TorchModel, TrajectoryRecorder, record_run
from sktda.attribution import TRAK, DiffIn, Influence, InnerProduct, Source, TracIn
from sktda.model.contrastive import BatchLoss, ContrastiveLoss, FixedNegatives
from tests.in_turn import in_turn

N, WORDS, BATCH, D = 22, 9, 6, 4
rng = np.random.default_rng(0)


def pairs(n):
    return {"images": rng.normal(size=(n, 5)), "texts": rng.integers(0, WORDS, (n, 3))}


X, X_VAL = pairs(N), pairs(8)


class Towers(nn.Module):
    """A linear tower of images and a bag of words; factor: whether the logit scale is trained, too."""

    def __init__(self, factor=True, length=True):
        super().__init__()
        self.image, self.text, self.length = nn.Linear(5, D), nn.Embedding(WORDS, D), length
        self.factor = nn.Parameter(torch.tensor(1.0)) if factor else None

    def forward(self, images, texts):
        found = torch.tanh(self.image(images)), self.text(texts).mean(1)
        if self.length:
            found = tuple(F.normalize(each, dim=1) for each in found)
        return found if self.factor is None else (*found, self.factor.exp())


class SigLIP(BatchLoss):
    """A batch loss of another kind: every pair of the batch is a match or none."""

    def terms(self, outputs):
        z = outputs[0] @ outputs[1].T
        return F.softplus(-(2 * torch.eye(len(z)).to(z) - 1) * z).sum(1)


CASES = {
    "factor": (ContrastiveLoss, {}),
    "temperature": (ContrastiveLoss, {"module__factor": False, "criterion__temperature": 0.3}),
    "no unit vectors": (ContrastiveLoss, {"module__factor": False, "module__length": False}),
    "another loss": (SigLIP, {"module__factor": False}),
}
CRITERIA = {
    name: loss(settings.get("criterion__temperature", 0.07)) if loss is ContrastiveLoss else loss()
    for name, (loss, settings) in CASES.items()
}


def net(case="factor", **settings):
    loss, more = CASES[case]
    torch.manual_seed(1)
    defaults = {"criterion": loss, "batch_size": BATCH, "max_epochs": 2, "lr": 0.1, "iterator_train__shuffle": True}
    fixed = {"train_split": None, "verbose": 0}
    return Double(Towers, **defaults | more | fixed | settings)


class Double(NeuralNet):
    """In float64, so that brute force is exact."""

    def initialize_module(self):
        super().initialize_module()
        self.module_.double()
        return self


def taken(data, rows):
    return {name: torch.from_numpy(value[rows]) for name, value in data.items()}


class Truth:
    """Sums of terms of batches as functions of the flat parameters, and brute-force values of pairs."""

    def __init__(self, case, trajectory):
        self.case, self.run = case, trajectory
        self.module = net(case).initialize().module_
        self.names = [name for name, _ in self.module.named_parameters()]

    def at(self, c):
        state = self.run.state(c)
        return torch.cat([state[name].reshape(-1) for name in self.names])

    def total(self, theta, data, rows):
        shapes = [self.module.get_parameter(name).shape for name in self.names]
        parts = theta.split([shape.numel() for shape in shapes])
        own = {n: p.reshape(s) for n, p, s in zip(self.names, parts, shapes, strict=True)}
        outputs = functional_call(self.module, own, (), taken(data, rows))
        return CRITERIA[self.case](outputs) * len(rows) if len(rows) else 0 * theta.sum()

    def validation(self, theta):
        return sum(self.total(theta, X_VAL, np.arange(8)[part]) for part in (slice(0, 6), slice(6, 8))) / 8

    def latest(self, c):
        """{pair: its latest batch before checkpoint c, or else the first one after it}."""
        batches = [self.run.step_rows(k) for k in range(self.run.n_steps)]
        order = [*batches[: self.run.steps[c] - 1 : -1], *batches[: self.run.steps[c]]]
        return {i: rows for rows in order for i in rows}

    def added(self, theta, i, batch):
        return self.total(theta, X, batch) - self.total(theta, X, batch[batch != i])

    def gradient(self, function, theta):
        return torch.func.grad(function)(theta)

    def slopes(self, c, v):
        theta = self.at(c)
        return np.array(
            [
                float(v @ self.gradient(lambda t, i=i, batch=batch: self.added(t, i, batch), theta))
                for i, batch in sorted(self.latest(c).items())
            ]
        )


@in_turn("m", [1, 2, 7])
@in_turn("case", CASES)
def test_what_a_pair_adds_is_the_loss_of_its_batch_less_that_without_it(case, m):
    module, criterion = net(case).initialize().module_, CRITERIA[case]
    outputs = module(**taken(X, np.arange(m)))
    own = (outputs[0], outputs[1], outputs[2].expand(m)) if len(outputs) == 3 else outputs
    expected = [
        m * criterion(outputs) - (criterion(tuple(each[kept] for each in own)) * (m - 1) if m > 1 else 0)
        for kept in ~torch.eye(m, dtype=torch.bool)
    ]
    torch.testing.assert_close(criterion.removals(own), torch.stack(expected), rtol=1e-9, atol=1e-12)


def test_a_negative_that_takes_all_of_the_softmax_is_taken_out_exactly():
    images = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64).requires_grad_()
    texts = images.detach()[[1, 0, 2]]
    loss = ContrastiveLoss(temperature=0.01)
    found = loss.removals((images, texts))
    kept = [[1, 2], [0, 2], [0, 1]]
    expected = torch.stack([loss.terms((images, texts)).sum() - loss.terms((images[k], texts[k])).sum() for k in kept])
    torch.testing.assert_close(found, expected)
    assert torch.isfinite(torch.autograd.grad(found.sum(), images)[0]).all()


@pytest.mark.parametrize("case", CASES)
def test_inner_products_are_those_with_the_gradient_of_what_a_pair_adds_to_its_last_batch(case):
    method = InnerProduct(net(case)).fit(X, None, X_val=X_VAL)
    truth = Truth(case, method.trajectory_)
    v = truth.gradient(truth.validation, truth.at(-1))
    expected = method.trajectory_.effective_rate_sums.sum() * truth.slopes(-1, v) / N
    np.testing.assert_allclose(method.scores_, expected, rtol=1e-7, atol=1e-12)
    assert method.objectives_["ValidationLoss"].value == pytest.approx(float(truth.validation(truth.at(-1))))


@pytest.mark.parametrize("count", [2, 5])
def test_tracin_follows_the_batches_of_every_checkpoint_and_rates_by_group(count):
    groups = {"optimizer__param_groups": [("text*", {"lr": 0.3})], "optimizer__momentum": 0.5}
    own = net(max_epochs=3, callbacks=[TrajectoryRecorder(n_checkpoints=count, steps=True)], **groups)
    method = TracIn(own).fit(X, None, X_val=X_VAL)
    run = method.trajectory_
    truth, expected = Truth("factor", run), 0.0
    sizes = [truth.module.get_parameter(name).numel() for name in truth.names]
    for c in range(len(run)):
        rate = [run.group_effective_rate_sums[c][run.parameter_groups[name]] for name in truth.names]
        v = truth.gradient(truth.validation, truth.at(c))
        expected = expected + truth.slopes(c, v * torch.repeat_interleave(torch.tensor(rate), torch.tensor(sizes))) / N
    np.testing.assert_allclose(method.scores_, expected, rtol=1e-7, atol=1e-12)


def test_self_influence_is_minus_the_square_of_that_gradient():
    method = InnerProduct(net()).fit(X, None)
    truth = Truth("factor", method.trajectory_)
    theta = truth.at(-1)
    batches = sorted(truth.latest(-1).items())
    found = [truth.gradient(lambda t, i=i, b=b: truth.added(t, i, b), theta) for i, b in batches]
    expected = -method.trajectory_.effective_rate_sums.sum() * np.array([float(g @ g) for g in found]) / N
    np.testing.assert_allclose(method.scores_, expected, rtol=1e-7)


def test_diff_in_takes_gradients_and_hessians_of_what_a_pair_adds_and_of_the_batches_of_all():
    own = net(max_epochs=2, callbacks=[TrajectoryRecorder(every=1, steps=True)], optimizer__weight_decay=0.01)
    method = DiffIn(own).fit(X, None, X_val=X_VAL)
    run = method.trajectory_
    truth, expected = Truth("factor", run), 0.0
    for c in range(len(run)):
        theta, latest = truth.at(c), truth.latest(c)
        batches = {tuple(batch) for batch in latest.values()}  # each epoch is one partition

        def risk(t, batches=batches):
            return sum(truth.total(t, X, np.array(b)) for b in batches) / N + 0.005 * t @ t

        slope, v = truth.gradient(risk, theta), truth.gradient(truth.validation, theta)
        product = truth.gradient(lambda t, risk=risk, v=v: torch.func.grad(risk)(t) @ v, theta)
        weight = run.n_steps * run.steps[c] * run.learning_rates[c] ** 2 / (N * len(run))
        each = []
        for i, batch in sorted(latest.items()):
            gradient = truth.gradient(lambda t, i=i, b=batch: truth.added(t, i, b), theta)
            bent = truth.gradient(
                lambda t, i=i, b=batch, g=slope: torch.func.grad(lambda u: truth.added(u, i, b))(t) @ g, theta
            )
            each.append(float(product @ gradient + v @ bent))
        expected = expected + weight * np.array(each)
    np.testing.assert_allclose(method.scores_, expected, rtol=1e-6, atol=1e-13)


def test_values_are_the_first_order_effect_of_taking_a_pair_out_of_the_steps():
    """Steps of a small rate made again without the pair, each loss divided by the size of the whole batch."""
    rate = 1e-3
    method = TracIn(net(lr=rate, max_epochs=1, iterator_train__drop_last=True)).fit(X, None, X_val=X_VAL)
    truth, run = Truth("factor", method.trajectory_), method.trajectory_
    start = run.initial_state()
    start = torch.cat([start[name].reshape(-1) for name in truth.names])

    def after(left_out):
        theta = start
        for k in range(run.n_steps):
            batch = run.step_rows(k)
            kept = batch[batch != left_out]
            theta = theta - rate * truth.gradient(lambda t, b=kept: truth.total(t, X, b), theta) / len(batch)
        return float(truth.validation(theta))

    whole = after(None)
    effect = np.array([after(i) - whole for i in range(N)])
    assert np.corrcoef(effect, method.scores_)[0, 1] > 0.99


def test_pairs_that_are_given_more_often_than_they_were_trained_on_are_worth_the_same_each_time():
    fitted = net(callbacks=[TrajectoryRecorder(steps=True)]).fit(X, None)
    for extra in ([3], [0, 0, 21]):
        again = np.array([*range(N), *extra])
        more = pairs_of(X, again)
        for attributor in (
            InnerProduct(FrozenEstimator(fitted)),
            TracIn(FrozenEstimator(fitted)),
            DiffIn(FrozenEstimator(fitted)),
        ):
            validation = {"X_val": X_VAL, "y_val": None}
            expected = attributor.fit(X, None, **validation).scores_
            np.testing.assert_allclose(attributor.fit(more, None, **validation).scores_, expected[again], rtol=1e-9)


def test_scores_do_not_depend_on_the_order_of_the_pairs_or_the_batch_size():
    fitted = net(callbacks=[TrajectoryRecorder(steps=True)]).fit(X, None)
    expected = TracIn(FrozenEstimator(fitted)).fit(X, None, X_val=X_VAL).scores_
    order = rng.permutation(N)
    turned = {name: value[order] for name, value in X.items()}
    found = TracIn(FrozenEstimator(fitted), batch_size=4).fit(turned, None, X_val=X_VAL).scores_
    np.testing.assert_allclose(found, expected[order], rtol=1e-9)
    with pytest.raises(ValueError, match="2 of the 22 pairs that the net was trained on are missing"):
        TracIn(FrozenEstimator(fitted)).fit(pairs_of(X, np.arange(20)), None, X_val=X_VAL)


def pairs_of(data, rows):
    return {name: value[rows] for name, value in data.items()}


def test_pairs_that_no_batch_held_count_nothing():
    dropped = net(max_epochs=1, iterator_train__drop_last=True)
    method = InnerProduct(dropped).fit(X, None, X_val=X_VAL)
    seen = np.unique(method.trajectory_.step_index)
    assert len(seen) == 18
    assert (method.scores_ != 0).sum() == 18
    assert (method.scores_[seen] != 0).all()


class Clip(nn.Module):
    """A user's own contrastive loss, written as torch's are; with reduction="none" it looks like a loss of rows."""

    def __init__(self, reduction="mean"):
        super().__init__()
        self.reduction = reduction

    def forward(self, outputs, targets=None):
        z = outputs[0] @ outputs[1].T
        return F.cross_entropy(z, torch.arange(len(z)), reduction=self.reduction)


@in_turn("y", [None, np.zeros(N)])
@in_turn("method", [InnerProduct, TracIn, DiffIn, Influence])
def test_a_criterion_that_compares_the_rows_of_a_batch_is_refused_with_and_without_targets(method, y):
    with pytest.raises(ValueError, match=r"rows meet in it.*ContrastiveLoss"):
        method(net(criterion=Clip, module__factor=False)).fit(X, y)


def attribute(data):
    return InnerProduct(net()).fit(data, None, X_val=X_VAL).attribute(X_VAL, None)


def delete(data):
    return DiffIn(net()).fit(data, None, X_val=X_VAL).deletion_update([0])


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (Influence(net()).fit, "each other's negatives"),
        (TRAK(net()).fit, "each other's negatives"),
        (Source(net()).fit, "each other's negatives"),
        (DiffIn(net()).fit, "each other's negatives"),
        (attribute, "each other's negatives"),
        (delete, "each other's negatives"),
        (DiffIn(net(), hvp="gauss-newton").fit, "hvp='exact'"),
        (InnerProduct(net(callbacks=[TrajectoryRecorder()])).fit, "steps=True"),
    ],
    ids=["Influence", "TRAK", "Source", "self of DiffIn", "attribute", "deletion", "Gauss-Newton", "no steps"],
)
def test_what_needs_a_loss_of_a_single_pair_is_refused_in_one_sentence(use, message):
    more = {} if use.__name__ in {"attribute", "delete"} or message.startswith("each") else {"X_val": X_VAL}
    with pytest.raises(ValueError, match=message):
        use(X, **more) if use.__name__ in {"attribute", "delete"} else use(X, None, **more)


def test_a_batch_that_holds_a_pair_twice_and_weights_of_pairs_are_refused():
    again = net(iterator_train__shuffle=False, iterator_train__sampler=torch.utils.data.RandomSampler(range(N), True))
    with pytest.raises(ValueError, match="holds a pair twice"):
        InnerProduct(again).fit(X, None, X_val=X_VAL)
    fitted = net(callbacks=[TrajectoryRecorder(steps=True)]).fit(X, None)
    with pytest.raises(ValueError, match="sample_weight has no meaning"):
        InnerProduct(FrozenEstimator(fitted)).fit(X, None, np.ones(N), X_val=X_VAL)


# ---- a loop of one's own -------------------------------------------------------------------------------------------


def loop(batches, module, accumulated=1, **settings):
    """The module trained on batches of positions, and its record."""
    criterion, optimizer = ContrastiveLoss(), torch.optim.SGD(module.parameters(), lr=0.1)
    with record_run(module, criterion, optimizer, X, every=4, steps=True) as run:
        for k, batch in enumerate(batches, start=1):
            run.batch(batch)
            (criterion(module(**taken(X, batch))) / accumulated).backward()
            if k % accumulated == 0:
                optimizer.step()
                optimizer.zero_grad()
    return TorchModel(module, criterion, run.trajectory_)


@pytest.mark.parametrize("method", [InnerProduct, TracIn, DiffIn])
def test_a_loop_of_the_same_steps_has_the_scores_of_a_net(method):
    fitted = net(callbacks=[TrajectoryRecorder(every=1, steps=True)]).initialize()
    start = deepcopy(fitted.module_)
    fitted.partial_fit(X, None)
    run = fitted.callbacks_[-2][1].trajectory_
    model = loop([run.step_rows(k) for k in range(run.n_steps)], start)
    expected = method(FrozenEstimator(fitted)).fit(X, None, X_val=X_VAL).scores_
    np.testing.assert_allclose(method(model).fit(X, None, X_val=X_VAL).scores_, expected, rtol=1e-6)


@pytest.mark.parametrize("rows", ["dicts", "tuples"])
def test_rows_of_a_dataset_hold_no_targets(rows):
    whole = TensorDataset(*(torch.from_numpy(value) for value in X.values()))
    data = whole if rows == "tuples" else Named(whole)
    torch.manual_seed(2)
    module, criterion = Towers().double(), ContrastiveLoss()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    loader = DataLoader(data, batch_size=BATCH, shuffle=True)
    with record_run(module, criterion, optimizer, loader, steps=True) as run:
        for batch in loader:
            optimizer.zero_grad()
            criterion(module(**batch) if rows == "dicts" else module(*batch)).backward()
            optimizer.step()
    found = InnerProduct(TorchModel(module, criterion, run.trajectory_)).fit(data, None, X_val=X_VAL).scores_
    truth = Truth("factor", run.trajectory_)
    v = truth.gradient(truth.validation, truth.at(-1))
    np.testing.assert_allclose(found, 0.1 * run.trajectory_.n_steps * truth.slopes(-1, v) / N, rtol=1e-6)


class Named(Dataset):
    """Rows of a TensorDataset as dicts."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return dict(zip(X, self.rows[i], strict=True))


def test_a_step_of_several_batches_is_refused_since_it_is_not_known_who_met():
    with pytest.raises(ValueError, match="step 1 adds the losses of 2 batches"):
        loop([np.arange(6), np.arange(6, 12)], Towers().double(), accumulated=2)


# ---- fixed negatives -----------------------------------------------------------------------------------------------

BANK = pairs(5)


def bank_net(**settings):
    torch.manual_seed(1)
    fixed = {"train_split": None, "verbose": 0, "batch_size": BATCH, "max_epochs": 2, "lr": 0.1}
    return Double(
        FixedNegatives,
        module__module=Towers(),
        module__negatives=BANK,
        criterion=nn.CrossEntropyLoss,
        **fixed | settings,
    )


ZEROS, ZEROS_VAL = np.zeros((N, 2), dtype=int), np.zeros((8, 2), dtype=int)


def bank_losses(module, data):
    """Of each pair against the bank alone: as one of 1 + K pairs."""
    images, texts, factor = module(**taken(data, np.arange(len(data["images"]))))
    others = [each.detach() for each in module(**taken(BANK, np.arange(5)))[:2]]
    losses = []
    for image, text in zip(images, texts, strict=True):
        first = factor * torch.cat([(image @ text)[None], others[1] @ image])
        second = factor * torch.cat([(image @ text)[None], others[0] @ text])
        losses.append((first.logsumexp(0) - first[0] + second.logsumexp(0) - second[0]) / 2)
    return torch.stack(losses)


def test_pairs_against_fixed_negatives_have_losses_of_their_own():
    method = InnerProduct(bank_net()).fit(X, ZEROS, X_val=X_VAL, y_val=ZEROS_VAL)
    module = method.estimator_.module_.module
    own = list(module.parameters())

    def flat(value):
        return torch.cat([g.reshape(-1) for g in torch.autograd.grad(value, own, retain_graph=True)])

    v = flat(bank_losses(module, X_VAL).mean())
    expected = [float(v @ flat(loss)) for loss in bank_losses(module, X)]
    np.testing.assert_allclose(
        method.scores_, method.trajectory_.effective_rate_sums.sum() * np.array(expected) / N, rtol=1e-7
    )


@pytest.mark.parametrize("method", [Influence(damping=0.1), TracIn(), DiffIn(), TRAK(proj_dim=16)])
def test_every_method_takes_pairs_against_fixed_negatives(method):
    found = method.set_params(estimator=bank_net()).fit(X, ZEROS, X_val=X_VAL, y_val=ZEROS_VAL).scores_
    assert np.isfinite(found).all()
    assert np.ptp(found) > 0


# ---- a planted answer ----------------------------------------------------------------------------------------------


def test_mismatched_pairs_are_found_and_removed():
    random = np.random.default_rng(3)
    kinds = random.integers(0, 6, 160)
    centres = random.normal(size=(6, 5))
    texts = np.stack([kinds % 6, kinds % 6, random.integers(6, WORDS, 160)], axis=1)
    images = centres[kinds] + 0.2 * random.normal(size=(160, 5))
    wrong = np.zeros(160, dtype=bool)
    wrong[random.choice(120, 36, replace=False)] = True
    texts[wrong, :2] = ((kinds[wrong] + random.integers(1, 6, 36)) % 6)[:, None]
    data = {"images": images, "texts": texts}
    clean = pairs_of(data, np.arange(120, 160))
    own = net(batch_size=24, max_epochs=10, lr=0.5)
    pruner = InfluencePruner(own, DiffIn(), prune_ratio=0.3, validation=Holdout(clean, np.zeros(40)), random_state=0)
    pruner.fit(pairs_of(data, np.arange(120)), np.zeros(120))
    assert wrong[:120][~pruner.support_].mean() > 0.8  # 0.3 by chance
