"""Other libraries beside ours, on the same parameters: first whether the numbers agree, then the seconds.

Their scores are brought to ours here (sign and 1/n), so that a relative error means something.
"""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from shared.common import quick
from shared.nets import SEED, Setting, agreement, digits, fashion, interleaved, mlp, timed, trained
from sklearn.frozen import FrozenEstimator
from sklearn.utils import check_random_state
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

OUR_REPEATS = 3
BATCH = 256  # rows at a time of the peers that form one gradient per row


def row(what: str, peer: str, ours: float, theirs: float, values: tuple[Any, Any], **more: Any) -> dict:
    """One line of the table; ratio > 1: ours is faster."""
    compared = {"peer": f"{peer} {version(peer)}", "seconds": ours, "peer_seconds": theirs, "ratio": theirs / ours}
    return {"what": what, **compared, **agreement(*values), **more}


def module_of(setting: Setting) -> nn.Module:
    """A copy of the trained module, for the peer."""
    return copy.deepcopy(setting.net.module_).eval()


def tensors(setting: Setting) -> tuple[TensorDataset, TensorDataset]:
    """Training rows and queries as the peers take them."""
    train = TensorDataset(torch.from_numpy(setting.X), torch.from_numpy(setting.y))
    return train, TensorDataset(torch.from_numpy(setting.X_val), torch.from_numpy(setting.y_val))


# ---- kronfluence ---------------------------------------------------------------------------------------------------


def kronfluence_part(n: int, n_queries: int) -> dict:
    """EK-FAC factors and scores of pairs, with the labels that EK-FAC draws given to both."""
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments, ScoreArguments
    from kronfluence.task import Task

    from sktda.engine.ekfac import EKFAC
    from sktda.engine.pairwise import EKFACQueries, Queries
    from sktda.engine.per_row import PerRow

    warnings.filterwarnings("ignore", category=FutureWarning)  # kronfluence, of torch's GradScaler
    setting = fashion(n, n_queries)
    engine, rows, likelihood = setting.engine, setting.rows, setting.model.likelihood

    class Classification(Task):
        def compute_train_loss(self, batch: Any, model: nn.Module, sample: bool = False) -> Tensor:
            inputs, targets, noise = batch
            outputs = model(inputs)
            if sample:
                targets = likelihood.draw(outputs.detach(), noise)
            return F.cross_entropy(outputs, targets, reduction="sum")

        def compute_measurement(self, batch: Any, model: nn.Module) -> Tensor:
            return self.compute_train_loss(batch, model)

    noise = likelihood.noise(torch.Size((n,)), torch.Generator().manual_seed(SEED))
    train, queries = tensors(setting)
    train = TensorDataset(*train.tensors, noise)
    queries = TensorDataset(*queries.tensors, torch.zeros(n_queries))
    task = Classification()
    scoring = ScoreArguments(damping_factor=None)  # 0.1 times the mean eigenvalue of a layer, as ours
    with tempfile.TemporaryDirectory() as folder:
        model = prepare_model(module_of(setting), task)
        peer = Analyzer("peer", model, task, cpu=True, disable_tqdm=True, output_dir=folder)
        their_fit, _ = timed(lambda: peer.fit_all_factors("ekfac", train, BATCH, factor_args=FactorArguments("ekfac")))
        their_pairs, _ = timed(
            lambda: peer.compute_pairwise_scores("pairs", "ekfac", queries, train, n_queries, BATCH, score_args=scoring)
        )
        pairs = peer.load_pairwise_scores("pairs")["all_modules"].double().numpy()
        spectra = peer.load_lambda_matrices("ekfac")
    counts = spectra["num_lambda_processed"]
    spectra = {name: value / counts[name] for name, value in spectra["lambda_matrix"].items()}

    curvature = EKFAC(engine, rows, SEED)
    inverse = curvature.inverse()
    found: dict[str, Tensor] = {}

    def pairwise(tolerance: float) -> Callable[[], None]:
        def run() -> None:
            source = EKFACQueries(curvature, inverse, tolerance, n)
            if tolerance:
                source.choose_ranks(engine, setting.validation, rows, None)
            values = torch.empty(n_queries, n)
            for asked, ready in source.blocks(engine, setting.validation, None):

                def block(part: slice, ready: Queries = ready) -> Tensor:
                    factors = engine.capture(rows.block(part, setting.model.device), None, curvature.own(engine))[1]
                    return ready.block(factors)

                for part, each in engine.computed(rows, block):
                    values[asked, part] = each
            found[f"pairs {tolerance}"] = values

        return run

    tasks = {"fit": lambda: EKFAC(PerRow(setting.model), rows, SEED), "low rank": pairwise(0.02)}
    ours = interleaved(tasks, OUR_REPEATS)
    ours["exact"], _ = timed(pairwise(0.0))
    exact, low = found["pairs 0.0"].double().numpy(), found["pairs 0.02"].double().numpy()
    names = list(curvature.values)
    values = [torch.cat([source[name].flatten() for name in names]) for source in (curvature.values, spectra)]
    size = {"n": n, "queries": n_queries}
    own_error = agreement(low, exact)["relative_error"]
    return {
        "rows": [
            row("EK-FAC fit", "kronfluence", ours["fit"], their_fit, tuple(values), limit=50.0, **size),
            row("pairs, low rank", "kronfluence", ours["low rank"], their_pairs, (low, pairs), limit=25.0, **size),
            row("pairs, exact", "kronfluence", ours["exact"], their_pairs, (exact, pairs), **size),
            {"what": "relative error of low rank against our exact", "value": own_error, "limit": 0.02, **size},
        ]
    }


# ---- captum --------------------------------------------------------------------------------------------------------


def captum_part(n: int, n_queries: int) -> dict:
    """TracIn over the five checkpoints of one training; TracInCPFast sees the weights of the last layer only."""
    from captum.influence import TracInCP, TracInCPFast

    from sktda.attribution import TracIn
    from sktda.model.recorder import find_trajectory

    setting = fashion(n, n_queries)
    trajectory = find_trajectory(setting.net)
    train, queries = tensors(setting)
    module = module_of(setting)
    loss = nn.CrossEntropyLoss(reduction="sum")
    last = copy.deepcopy(setting.net)
    for name, value in last.module_.named_parameters():
        value.requires_grad_(name == "4.weight")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        files = [str(Path(folder) / f"{c}.pt") for c in range(len(trajectory))]
        for c, file in enumerate(files):
            torch.save(trajectory.state(c), file)

        def load(model: nn.Module, file: str) -> float:
            model.load_state_dict(torch.load(file))
            return float(trajectory.effective_rate_sums[int(Path(file).stem)])

        peers = {
            "TracInCP": (
                setting.net,
                TracInCP(module, train, files, load, loss_fn=loss, batch_size=BATCH, sample_wise_grads_per_batch=True),
            ),
            "TracInCPFast": (last, TracInCPFast(module, module[-1], train, files, load, loss, BATCH)),
        }
        for name, (net, peer) in peers.items():
            theirs, pairs = timed(lambda peer=peer: peer.influence(queries.tensors))
            theirs_self, selves = timed(lambda peer=peer: peer.self_influence())
            found: dict[str, np.ndarray] = {}

            def ask(net: Any = net, found: dict = found) -> None:
                tracin = TracIn(FrozenEstimator(net), objective=None).fit(setting.X, setting.y)
                found["pairs"] = n * tracin.attribute(setting.X_val, setting.y_val)

            def score(net: Any = net, found: dict = found) -> None:
                found["self"] = -n * TracIn(FrozenEstimator(net)).fit(setting.X, setting.y).scores_

            ours = interleaved({"pairs": ask, "self": score}, OUR_REPEATS)
            size = {"n": n, "queries": n_queries, "checkpoints": len(files)}  # Fast: both see one layer only
            both = found["pairs"], pairs.detach().numpy()
            rows.append(row(f"{name}, pairs", "captum", ours["pairs"], theirs, both, limit=1.0, **size))
            both = found["self"], selves.detach().numpy()
            rows.append(row(f"{name}, self", "captum", ours["self"], theirs_self, both, limit=1.0, **size))
    return {"rows": rows}


# ---- pyDVL ---------------------------------------------------------------------------------------------------------


def pydvl_part(repeats: int) -> dict:
    """Its tutorials: logistic regression of two Gaussians, a small net on the wine data; EK-FAC on digits besides."""
    from pydvl.influence.torch import DirectInfluence, EkfacInfluence

    warnings.filterwarnings("ignore", message="Full backward hook")  # pyDVL's hooks
    damping = 0.1
    rows = []
    for name, setting in (("two Gaussians, linear", gaussians()), ("wine, MLP 13-16-16-3", wine())):
        # its Gauss-Newton matrix is NaN for one batch and depends on the batch size, so its Hessian: the same for the
        # linear model, and not quite for the net, of which ours takes the Gauss-Newton matrix
        peer = DirectInfluence(module_of(setting), F.cross_entropy, damping)
        rows.append(pydvl_row(f"exact, {name}", setting, peer, "exact", damping, repeats))
    rows[-1]["note"] = "pyDVL takes the Hessian, sktda the Gauss-Newton matrix; for a linear model they are the same."
    for name, setting in (
        ("wine, MLP 13-16-16-3", wine()),
        ("digits, MLP 64-64-64-10", digits(*((150, 50) if quick() else ()))),
    ):
        peer = EkfacInfluence(module_of(setting), update_diagonal=True, hessian_regularization=damping)
        rows.append(pydvl_row(f"EK-FAC, {name}", setting, peer, "ekfac", damping, repeats))
    return {"rows": rows}


def pydvl_row(what: str, setting: Setting, peer: Any, curvature: str, damping: float, repeats: int) -> dict:
    """Fit and influences of all queries on all rows; pyDVL's are without 1/n.

    EK-FAC draws labels, pyDVL from torch's global state, so the two differ by chance: `own_seeds` is the agreement of
    two of our own seeds.
    """
    from pydvl.influence import InfluenceMode

    from sktda.attribution import Influence

    train, queries = tensors(setting)
    found: dict[str, np.ndarray] = {}

    def theirs() -> None:
        torch.manual_seed(SEED)
        fitted = peer.fit(DataLoader(train, batch_size=len(train)))
        values = fitted.influences(*queries.tensors, *train.tensors, mode=InfluenceMode.Up)
        found["theirs"] = values.detach().numpy()

    def ours(seed: int = SEED) -> None:
        influence = Influence(
            FrozenEstimator(setting.net), curvature=curvature, damping=damping, objective=None, random_state=seed
        )
        found["ours"] = influence.fit(setting.X, setting.y).attribute(setting.X_val, setting.y_val) * len(train)

    ours(SEED + 1)
    other = found["ours"]
    seconds = interleaved({"ours": ours, "theirs": theirs}, repeats)
    size = {"n": len(train), "queries": len(queries), "limit": 1.0}
    if curvature == "ekfac":
        size["own_seeds"] = agreement(found["ours"], other)["pearson"]
    return row(what, "pydvl", seconds["ours"], seconds["theirs"], (found["ours"], found["theirs"]), **size)


def gaussians() -> Setting:
    """7,000 rows of two Gaussians in the plane, 1,000 queries; with --quick a hundredth of both."""
    n, n_queries = (70, 10) if quick() else (7_000, 1_000)
    rng = np.random.default_rng(SEED)
    y = rng.integers(0, 2, n + n_queries)
    X = (rng.normal(size=(len(y), 2)) + 2.0 * y[:, None] - 1).astype(np.float32)
    torch.manual_seed(SEED)
    net = trained(nn.Sequential(nn.Linear(2, 2)), X[:n], y[:n], epochs=10, lr=0.05)
    return Setting(net, X[:n], y[:n], X[n:], y[n:])


def wine() -> Setting:
    """142 rows of the wine data, 36 queries."""
    from sklearn.datasets import load_wine
    from sklearn.model_selection import train_test_split
    from sklearn.preprocessing import scale

    X, y = load_wine(return_X_y=True)
    X, X_val, y, y_val = train_test_split(scale(X).astype(np.float32), y, test_size=0.2, random_state=SEED)
    torch.manual_seed(SEED)
    net = trained(mlp(13, 16, 16, 3, activation=nn.Tanh), X, y, epochs=50, lr=0.05)
    return Setting(net, X, y, X_val, y_val)


# ---- dattri --------------------------------------------------------------------------------------------------------


DATTRI_NOTE = (
    "the numbers differ, so the seconds are not of the same computation. On the same labels, dattri's eigenvalues are "
    "the mean squares of Q_S G Q_A' (to 1e-7); with eigenvectors in the columns of Q they would be of Q_S' G Q_A."
)


def dattri_part(repeats: int) -> dict:
    """Influence with an explicit Hessian on a linear model, and EK-FAC on digits.

    The factors of dattri's EK-FAC take the labels of their rows, so they get the ones that ours draws; the scores
    differ all the same, see `DATTRI_NOTE`.
    """
    from dattri.algorithm.influence_function import IFAttributorEKFAC, IFAttributorExplicit
    from dattri.task import AttributionTask

    from sktda.attribution import Influence

    rows = []
    for what, setting, curvature, damping in (
        ("exact, two Gaussians, linear", gaussians(), "exact", 0.1),
        ("EK-FAC, digits, MLP 64-64-64-10", digits(*((150, 50) if quick() else ())), "ekfac", 0.01),
    ):
        train, queries = tensors(setting)
        module, likelihood = module_of(setting), setting.model.likelihood
        seed = check_random_state(SEED).randint(2**31 - 1)  # as Influence does
        noise = likelihood.noise(torch.Size((len(train),)), torch.Generator().manual_seed(seed))
        with torch.no_grad():
            drawn = TensorDataset(train.tensors[0], likelihood.draw(module(train.tensors[0]), noise))
        found: dict[str, np.ndarray] = {}

        def loss(parameters: dict[str, Tensor], data: tuple[Tensor, Tensor], module: nn.Module = module) -> Tensor:
            inputs, targets = data
            outputs = torch.func.functional_call(module, parameters, (inputs.reshape(-1, inputs.shape[-1]),))
            return F.cross_entropy(outputs, targets.reshape(-1))

        def theirs(
            loss=loss, module=module, train=train, queries=queries, drawn=drawn, damping=damping, curvature=curvature,
            found=found,
        ) -> None:  # fmt: skip
            task = AttributionTask(loss_func=loss, model=module, checkpoints=module.state_dict())
            if curvature == "exact":
                peer = IFAttributorExplicit(task=task, regularization=damping)
                peer.cache(DataLoader(train, batch_size=len(train)))
            else:
                peer = IFAttributorEKFAC(task=task, damping=damping)
                peer.cache(DataLoader(drawn, batch_size=len(train)))
            loaders = (DataLoader(data, batch_size=len(data)) for data in (train, queries))
            found["theirs"] = peer.attribute(*loaders).detach().numpy().T

        def ours(setting=setting, curvature=curvature, damping=damping, found=found) -> None:
            influence = Influence(
                FrozenEstimator(setting.net), curvature=curvature, damping=damping, objective=None, random_state=SEED
            )
            fitted = influence.fit(setting.X, setting.y)
            found["ours"] = fitted.attribute(setting.X_val, setting.y_val) * len(setting.X)

        seconds = interleaved({"ours": ours, "theirs": theirs}, repeats)
        values, size = (found["ours"], found["theirs"]), {"n": len(train), "queries": len(queries)}
        if curvature == "ekfac":
            size["note"] = DATTRI_NOTE
        rows.append(row(what, "dattri", seconds["ours"], seconds["theirs"], values, **size))
    return {"rows": rows}
