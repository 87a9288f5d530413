"""TorchModel: a trained module of any kind is what a frozen skorch net is, for every method and cleaner."""

import copy
import inspect
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.utils.data import Dataset, Subset, TensorDataset

from sktda import (
    CoresetSelector,
    InfluencePruner,
    NoisyLabelDetector,
    ResampledEstimator,
    TorchModel,
    record_run,
)
from sktda.attribution import AUM, EL2N, Influence, ModelEnsemble, SelfConfidence, Source, TracIn, unlearn
from tests.model.loops import by_plain_loop, loader_of, make, plain, sgd
from tests.model.nets import Mlp, rows

CE = nn.CrossEntropyLoss()


class Two(nn.Module):
    """Two inputs; an output as `out` says."""

    def __init__(self, out="tensor", width=2):
        super().__init__()
        self.out = out
        self.left, self.right = nn.Linear(2, 4), nn.Linear(1, 4)
        self.last = nn.Linear(4, width)

    def forward(self, a, b, labels=None):
        logits = self.last(torch.tanh(self.left(a) + self.right(b)))
        return {"tensor": logits, "tuple": (logits, a), "dict": {"logits": logits, "loss": None}}[self.out]


@pytest.mark.parametrize("kind", ["pairs", "dicts", "lists", "hugging-face"])
def test_rows_in_a_list_or_a_dataset_of_hugging_face_are_those_of_arrays(kind):
    X, y = rows(40)
    given = list(zip(torch.tensor(X), torch.tensor(y), strict=True))
    if kind != "pairs":
        given = [{"X": x.tolist() if kind == "lists" else x, "labels": int(label)} for x, label in given]
    if kind == "hugging-face":
        datasets = pytest.importorskip("datasets")
        columns = {"X": X.tolist(), "labels": y.tolist(), "text": ["a word"] * 40}
        given = datasets.Dataset.from_dict(columns)
    if kind in {"pairs", "dicts"}:
        loop = plain if kind == "pairs" else plain_of_dicts
        module = make()
        optimizer = sgd(module)
        loader = loader_of(given)
        run = record_run(module, CE, optimizer, loader, steps=True)
        loop(module, optimizer, run, loader)
        recorded = TracIn(TorchModel(module, CE, run.trajectory_))
        np.testing.assert_array_equal(recorded.fit(given, None).scores_, recorded.fit(X, y).scores_)
    model = TorchModel(make(), CE, optimizer=None)
    expected = Influence(model).fit(X, y)
    found = Influence(model).fit(given, None)
    np.testing.assert_allclose(found.scores_, expected.scores_, rtol=1e-6)
    queries = given.select([2, 7]) if kind == "hugging-face" else [given[2], given[7]]
    np.testing.assert_allclose(found.attribute(queries, None), expected.attribute(X[[2, 7]], y[[2, 7]]), rtol=1e-6)
    by_validation = TracIn(model).fit(given, None, X_val=queries).scores_
    np.testing.assert_allclose(
        by_validation, TracIn(model).fit(X, y, X_val=X[[2, 7]], y_val=y[[2, 7]]).scores_, rtol=1e-6
    )


def plain_of_dicts(module, optimizer, run, loader):
    """The loop, of batches that are dicts."""
    with run:
        for batch in loader:
            optimizer.zero_grad()
            CE(module(batch["X"]), batch["labels"]).backward()
            optimizer.step()


class Words(nn.Module):
    """A class for every token."""

    def __init__(self):
        super().__init__()
        self.words, self.last = nn.Embedding(7, 4), nn.Linear(4, 7)

    def forward(self, ids):
        return self.last(self.words(ids)).transpose(1, 2)


class Named(Dataset):
    """Rows as dicts, as the Trainer takes them."""

    def __init__(self, *columns):
        self.columns = columns

    def __len__(self):
        return len(self.columns[0])

    def __getitem__(self, i):
        a, b, y = (column[i] for column in self.columns)
        return {"a": a, "b": b, "labels": y}


def parts():
    """(a, b, y): two columns, one, labels."""
    X, y = rows()
    return torch.tensor(X[:, :2]), torch.tensor(X[:, 2:]), torch.tensor(y)


@pytest.mark.parametrize("out", ["tensor", "tuple", "dict"])
def test_inputs_by_name_in_tuples_and_in_dicts_are_the_same_rows(out):
    a, b, y = parts()
    model = TorchModel(make(lambda: Two(out)), CE)
    expected = Influence(model, damping=0.1).fit({"a": a.numpy(), "b": b.numpy()}, y.numpy()).scores_
    for dataset in (TensorDataset(a, b, y), Named(a, b, y)):
        found = Influence(model, damping=0.1).fit(dataset, None).scores_
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        assert (model.predict(dataset) == model.predict({"a": a.numpy(), "b": b.numpy()})).all()


@pytest.mark.parametrize("kind", ["dataset of tuples", "dataset of dicts", "dict of arrays"])
def test_runs_on_several_inputs_are_recorded(kind):
    a, b, y = parts()
    dataset = {"dataset of tuples": TensorDataset(a, b, y), "dataset of dicts": Named(a, b, y)}.get(kind)
    module = make(Two)
    optimizer = sgd(module)
    given = ({"a": a, "b": b}, y) if dataset is None else (torch.utils.data.DataLoader(dataset, batch_size=8),)
    with record_run(module, CE, optimizer, *given, n_steps=10, steps=True) as run:
        for _ in range(2):
            for i, batch in enumerate(given[0] if dataset is not None else torch.arange(40).split(8)):
                if dataset is None:
                    run.batch(batch)
                    batch = {"a": a[batch], "b": b[batch], "labels": y[batch]}
                elif isinstance(batch, list):
                    batch = dict(zip(("a", "b", "labels"), batch, strict=True))
                assert i < 5
                optimizer.zero_grad()
                nn.functional.cross_entropy(module(**batch), batch["labels"]).backward()
                optimizer.step()
    assert run.trajectory_.misfits.max() == 0
    model = TorchModel(module, CE, run.trajectory_)
    arrays = ({"a": a.numpy(), "b": b.numpy()}, y.numpy())
    X, y = arrays if dataset is None else (dataset, None)
    found = TracIn(model).fit(X, y).scores_
    if kind == "dataset of dicts":  # whose labels are apart from the inputs, as in arrays
        np.testing.assert_allclose(TracIn(model).fit(*arrays).scores_, found, rtol=1e-5)
    with pytest.raises(ValueError, match="rows are not among the 40 rows"):
        TracIn(model).fit({"a": 1 - arrays[0]["a"], "b": arrays[0]["b"]}, arrays[1])


@pytest.mark.parametrize("shape", [(), (1,)])
@pytest.mark.parametrize("criterion", [nn.MSELoss(), nn.BCEWithLogitsLoss(), nn.HuberLoss()])
def test_numbers_and_yes_or_no(criterion, shape):
    X, y = rows()
    module = make(
        lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1), *([] if shape else [nn.Flatten(0)]))
    )
    target = torch.tensor(y, dtype=torch.float32).reshape(-1, *shape)
    optimizer = sgd(module, lr=0.05)
    loader = torch.utils.data.DataLoader(TensorDataset(torch.tensor(X), target), batch_size=8)
    with record_run(module, criterion, optimizer, loader) as run:
        plain(module, optimizer, None, loader, epochs=2, loss=criterion)
    model = TorchModel(module, criterion, run.trajectory_)
    assert TracIn(model).fit(X, target.numpy()).scores_.shape == (40,)
    assert Influence(TorchModel(module, criterion), damping=0.1).fit(X, target.numpy()).scores_.shape == (40,)
    assert len(model.predict(X)) == 40


def test_tokens_that_do_not_count():
    rng = np.random.default_rng(0)
    ids = torch.tensor(rng.integers(0, 7, size=(24, 5)))
    labels = ids.clone()
    labels[::3, 2:] = -100
    module = make(Words)
    optimizer = sgd(module)
    loader = torch.utils.data.DataLoader(TensorDataset(ids, labels), batch_size=6)
    with record_run(module, CE, optimizer, loader, steps=True) as run:
        plain(module, optimizer, None, loader, epochs=2, loss=CE)
    assert run.trajectory_.misfits.max() == 0
    scores = TracIn(TorchModel(module, CE, run.trajectory_)).fit(ids.numpy(), labels.numpy()).scores_
    assert scores.shape == (24,)


def ragged(items):
    ids, labels = zip(*items, strict=True)
    padded = nn.utils.rnn.pad_sequence(ids, batch_first=True)
    return {"ids": padded, "labels": nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=-100)}


def test_rows_of_other_lengths_by_a_collate_function():
    rng = np.random.default_rng(0)
    items = [(torch.tensor(rng.integers(0, 7, n)),) * 2 for n in rng.integers(2, 6, 24)]
    module = make(Words)
    optimizer = sgd(module)

    class Items(Dataset):
        def __len__(self):
            return len(items)

        def __getitem__(self, i):
            return items[i]

    class Backwards(Items):
        def __getitem__(self, i):
            return (items[i][0] + 1) % 7, items[i][1]

    loader = torch.utils.data.DataLoader(Items(), batch_size=6, collate_fn=ragged)
    with record_run(module, CE, optimizer, loader, steps=True) as run:
        for batch in loader:
            optimizer.zero_grad()
            CE(module(batch["ids"]), batch["labels"]).backward()
            optimizer.step()
    assert run.trajectory_.misfits.max() == 0
    model = TorchModel(module, CE, run.trajectory_, collate_fn=ragged)
    assert TracIn(model).fit(Items(), None).scores_.shape == (24,)
    with pytest.raises(ValueError, match="24 of 24 rows are not among"):
        TracIn(model).fit(Subset(Backwards(), range(24)), None)


def test_weight_decay_comes_from_the_optimiser_or_the_record():
    X, y = rows()
    module = make()
    decayed = torch.optim.SGD([{"params": module.first.parameters(), "weight_decay": 0.3}, *[]], lr=0.1)
    models = [TorchModel(module, CE), TorchModel(module, CE, optimizer=decayed)]
    curved = [Influence(each, curvature="exact", damping=0.05).fit(X, y).scores_ for each in models]
    assert not np.allclose(*curved)
    model = by_plain_loop()
    assert {group["weight_decay"] for group in model.optimizer_.param_groups} == {0.01}
    with pytest.raises(ValueError, match="adds the losses of a batch, weight decay counts by the size of a batch"):
        TorchModel(module, nn.CrossEntropyLoss(reduction="sum"), optimizer=decayed)
    with pytest.raises(ValueError, match="optimizer has none of the module's parameters"):
        TorchModel(make(), CE, optimizer=decayed)
    with pytest.raises(TypeError, match=r"optimizer must be the torch\.optim\.Optimizer"):
        TorchModel(module, CE, optimizer="SGD")


def test_it_is_a_copy_that_can_be_cloned_copied_pickled_and_shown():
    X, y = rows()
    module = make().train()
    model = TorchModel(module, CE)
    before = model.predict_proba(X)
    torch.manual_seed(0)
    drawn = torch.rand(1)
    torch.manual_seed(0)
    TorchModel(module, CE)
    assert torch.equal(drawn, torch.rand(1))
    assert module.training
    nn.init.zeros_(module.last.weight)
    np.testing.assert_array_equal(model.predict_proba(X), before)
    assert clone(model) is model
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(other.predict_proba(X), before)
    assert model.classes_.tolist() == [0, 1]
    assert model.score(X, y) >= 0
    assert "Mlp" in repr(model)
    assert "TorchModel" in model._repr_html_()


def test_a_record_of_another_module_or_of_other_parameters_is_refused(tmp_path):
    model = by_plain_loop()
    trajectory = TracIn(model).fit(*rows()).trajectory_
    trajectory.save(tmp_path / "run")
    final = make()
    final.load_state_dict(trajectory.state(-1))
    assert TorchModel(final, CE, tmp_path / "run").score(*rows()) > 0.5
    with pytest.raises(ValueError, match=r"not those at the end of its trajectory \('first.weight' differs\)"):
        TorchModel(make(), CE, trajectory)
    with pytest.raises(ValueError, match="the trajectory is of another model"):
        TorchModel(make(lambda: Mlp(width=6)), CE, trajectory)


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda m, X, y: SelfConfidence(m).fit(X, y), "cannot be trained again"),
        (lambda m, X, y: InfluencePruner(m, TracIn(m)).fit(X, y), "cannot be trained again"),
        (lambda m, X, y: ResampledEstimator(m, CoresetSelector()).fit(X, y), "cannot be trained again"),
        (lambda m, X, y: ModelEnsemble(TracIn(m), members="seeds").fit(X, y), "train"),
        (lambda m, X, y: AUM(m, percentile=99).fit(X, y), "FrozenEstimator"),
        (lambda m, X, y: Source(TorchModel(m.module_, CE)).fit(X, y), r"pass TorchModel the trajectory of record_run"),
    ],
)
def test_what_needs_another_training_says_so(use, message):
    X, y = rows()
    with pytest.raises(ValueError, match=message):
        use(by_plain_loop(), X, y)


def test_cleaners_take_it_for_scoring():
    X, y = rows()
    model = by_plain_loop()
    pruner = InfluencePruner(LogisticRegression(), TracIn(model), random_state=0).fit(X, y)
    assert pruner.n_pruned_ == 4
    assert NoisyLabelDetector(EL2N(model), random_state=0).fit(X, y).labels_.shape == (40,)
    assert len(CoresetSelector(TracIn(model), n_samples=0.5).fit(X, y).sample_indices_) == 20
    ensemble = ModelEnsemble(Influence(model, damping=0.1), members="checkpoints").fit(X, y)
    assert ensemble.scores_.shape == (40,)
    result = unlearn(model, [1, 2], X, y, retrain=True)
    assert result.distances["parameters_after"] < result.distances["parameters_before"]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ((None, CE), TypeError, "module must be a torch.nn.Module, got NoneType"),
        ((Mlp(), nn.functional.cross_entropy), TypeError, "got cross_entropy"),
        ((Mlp(), nn.CrossEntropyLoss(reduction="none")), TypeError, "reduction='none'"),
        ((Mlp(), CE, "nowhere"), FileNotFoundError, "nowhere does not exist"),
    ],
)
def test_what_is_no_model_is_refused(given, error, message):
    with pytest.raises(error, match=message):
        TorchModel(*given)


def test_only_the_callbacks_import_lightning_and_transformers():
    folder = Path(inspect.getfile(record_run)).parent
    found = {
        file.stem
        for file in folder.glob("*.py")
        if re.search(
            r"^\s*(from|import) (lightning|pytorch_lightning|transformers|sktda\.model\.(lightning|trainer)_)",
            file.read_text(encoding="utf-8"),
            flags=re.MULTILINE,
        )
    }
    assert found == {"lightning_recorder", "trainer_recorder"}
