"""Numbers of any size, drawn at random: scores as of well-scaled data, or one error that names what is to blame.

Warnings are errors in all tests, so that none of NumPy's leaks here.
"""

import inspect
import re

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy.stats import spearmanr
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import RobustScaler, StandardScaler

import sktda.attribution
from sktda import InfluencePruner, InfluenceReweighter, NoisyLabelDetector, ResampledEstimator
from sktda.attribution import ComplexityGap, DataOOB, Influence, SelfConfidence, TreeKernel
from sktda.attribution.base import Attributor
from sktda.attribution.predictions import out_of_sample
from sktda.data import check_weights, encode_target
from sktda.model import proxy
from sktda.model.standard import NearOne, Standard

N, PLANTED = 60, [3, 20, 41]
RNG = np.random.default_rng(0)
CLASS = np.arange(N) % 2
X = RNG.normal(size=(N, 4)) + np.outer(2 * CLASS - 1, [2, 1, 0, 0])
VALUE = X @ [2.0, 1.0, 0.0, 0.0] + 0.1 * RNG.normal(size=N)
CLASS[PLANTED] = 1 - CLASS[PLANTED]
VALUE[PLANTED] += 30
WEIGHT = RNG.uniform(0.5, 2, N)
CHEAP = {"n_members": 2, "n_estimators": 50, "cv": 2}
KERNEL = ComplexityGap(ridge=0.3, scale="standard")


@pytest.fixture(autouse=True, scope="module")
def short_training():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proxy, "EPOCHS", (3, 3))
        patch.setattr(proxy, "WIDTH", 16)
        patch.setattr(out_of_sample, "ExtraTreesClassifier", lambda _, **options: ExtraTreesClassifier(10, **options))
        yield


def attributors():
    """Every public one that scores by itself, cheaply."""
    for name in sktda.attribution.__all__:
        cls = getattr(sktda.attribution, name)
        if inspect.isclass(cls) and issubclass(cls, Attributor) and not name.startswith("Precomputed"):
            parameters = inspect.signature(cls).parameters
            yield (
                name,
                lambda cls=cls, parameters=parameters: cls(**{k: v for k, v in CHEAP.items() if k in parameters}),
            )


ATTRIBUTORS = dict(attributors())
del ATTRIBUTORS["Ensemble"], ATTRIBUTORS["LabelPosterior"]  # made of others
NUMBERS_TOO = [  # what scores numeric targets, too
    *("BoostIn", "DataOOB", "DiffIn", "Distributional", "EL2N", "GraNd", "Influence", "InnerProduct"),
    *("LeafInfluence", "LoGra", "Loss", "MoSo", "ModelEnsemble", "OutlierGradient", "RobustResidual", "SGDInfluence"),
    *("Source", "TRAK", "TracIn", "TreeKernel", "ComplexityGap"),
]
SQUARES = {"BoostIn", "DataOOB", "LeafInfluence", "TreeKernel"}  # in units of y, which may have none
SCALED = ["ComplexityGap", "RobustResidual", "EL2N", "Influence", "ModelEnsemble"]
BASE = {}


def scored(make, X, y, weight=None):
    """Scores, all finite; what came in stays as it was."""
    before = [np.array(each) for each in (X, y, weight)] if not sp.issparse(X) else []
    fitted = make().fit(X, y, **({} if weight is None else {"sample_weight": weight}))
    for given, kept in zip((X, y, weight), before, strict=False):
        np.testing.assert_array_equal(np.array(given), kept)
    assert np.isfinite(fitted.scores_).all()
    return fitted.scores_


def base(name, y):
    key = name, y.dtype.kind
    if key not in BASE:
        BASE[key] = scored(ATTRIBUTORS[name], X, y)
    return BASE[key]


def other_units(random):
    """X with columns in units from 1e-300 to 1e290, or on an offset of up to 1e11; sometimes in single precision."""
    single = random.random() < 0.3
    found = X.copy()
    for j in range(X.shape[1]):
        if random.random() < 0.6:
            found[:, j] *= 10.0 ** (random.uniform(-30, 30) if single else random.uniform(-300, 290))
        else:
            found[:, j] += 10.0 ** (random.uniform(1, 3) if single else random.uniform(1, 11))
    return found.astype(np.float32) if single else found


# one draw for each method, of one kind or the other: what they share is in few places, and the time is the suite's
@pytest.mark.parametrize("name", [*ATTRIBUTORS][::2])
def test_units_and_offsets_of_the_columns_do_not_matter(name):
    random = np.random.default_rng(list(ATTRIBUTORS).index(name))
    y = VALUE if name in NUMBERS_TOO else CLASS
    assert spearmanr(scored(ATTRIBUTORS[name], other_units(random), y), base(name, y)).statistic > 0.9


@pytest.mark.parametrize("name", [name for name in [*ATTRIBUTORS][1::2] if name != "RobustResidual"])
def test_an_absurd_cell_leaves_the_planted_rows_where_they_were(name):
    random = np.random.default_rng(list(ATTRIBUTORS).index(name))
    spoilt = X.copy()
    spoilt[50, 2] = random.choice([-1, 1]) * 10.0 ** random.uniform(13, 308)
    if abs(spoilt[50, 2]) < 1e38:
        spoilt = spoilt.astype(np.float32)
    found, clean = (
        np.isin(PLANTED, each.argsort()[:20]).sum()
        for each in (scored(ATTRIBUTORS[name], spoilt, CLASS), base(name, CLASS))
    )
    assert found >= clean - 1


@pytest.mark.parametrize("name", [*SCALED, *sorted(SQUARES), "default"])
def test_numbers_to_predict_are_scaled_or_named(name):
    random = np.random.default_rng(len(name))
    absurd = VALUE.copy()
    absurd[50] = random.choice([-1, 1]) * 10.0 ** random.uniform(155, 300)
    tiny = VALUE * 10.0 ** random.uniform(-300, -160)
    make = NoisyLabelDetector if name == "default" else ATTRIBUTORS[name]
    for y in (absurd, tiny):
        if name in SQUARES:
            with pytest.raises(ValueError, match=r"y reaches .* in row 50|y is at most"):
                make().fit(X, y)
        elif y is absurd:
            assert 50 in scored(make, X, y).argsort()[:3]
        elif name in SCALED:
            assert spearmanr(scored(make, X, y), base(name, VALUE)).statistic > 0.9
    with pytest.raises(ValueError, match=r"y is -?1\.7e\+308 in row \d+, beyond 1e\+300"):
        encode_target(np.sign(VALUE) * 1.7e308, "regression")


@pytest.mark.parametrize("y", [VALUE * 1e-9, VALUE + 1e9], ids=["small", "on an offset"])
def test_forests_refuse_targets_that_they_see_no_difference_in(y):
    for make in (DataOOB, TreeKernel):
        with pytest.raises(ValueError, match=r"y varies by .* too little for RandomForestRegressor .*; standardise y"):
            make().fit(X, y)


@pytest.mark.parametrize("name", ["EL2N", "Influence", "DiffIn", "BoostIn", "SelfConfidence"])
@pytest.mark.parametrize("factor", [1e-60, 1e60])
def test_only_ratios_of_weights_matter_to_the_default_models(name, factor):
    make = ATTRIBUTORS[name]
    expected, found = (scored(make, X, CLASS, k * WEIGHT) for k in (1.0, factor))
    assert spearmanr(found, expected).statistic > 0.9


@pytest.mark.parametrize("weight", [1e-310 * WEIGHT, 1e160 * WEIGHT, np.r_[WEIGHT[1:], 1e200]], ids=range(3))
def test_weights_that_cannot_be_multiplied_are_refused(weight):
    with pytest.raises(ValueError, match=r"sample_weight reaches \S+ \(row \d+\), .*divide all by the largest"):
        check_weights(weight, N)
    check_weights(np.r_[WEIGHT[1:], 1e-310], N)


CLASSIFIERS = [
    *(LogisticRegression(), GaussianNB(), ExtraTreesClassifier(5), make_pipeline(StandardScaler(), GaussianNB())),
    *(HistGradientBoostingClassifier(max_iter=3), make_pipeline(RobustScaler(), ExtraTreesClassifier(5))),
]


@pytest.mark.parametrize("model", CLASSIFIERS, ids=lambda model: re.sub(r"\W+", " ", str(model))[:50])
@pytest.mark.parametrize(
    "form",
    [
        np.array,
        lambda X: X.astype(object),
        lambda X: X.tolist(),
        lambda X: pd.DataFrame(X, columns=list("abcd")),
        lambda X: pd.DataFrame(X.astype(object), columns=list("abcd")),
    ],
    ids=["array", "objects", "list", "frame", "frame of objects"],
)
def test_a_model_of_the_users_takes_a_huge_number_or_the_error_names_it(model, form):
    huge = X.copy()
    huge[50, 2] = 1e200
    try:
        scored(lambda: SelfConfidence(model, cv=2), form(huge), CLASS)
    except ValueError as error:
        assert re.match("column (2|'c') of X is 1e[+]200 in row 50, too large to be squared", str(error))  # noqa: PT017
    else:
        assert "Hist" in str(model)


@pytest.mark.parametrize("cleaner", [InfluencePruner, InfluenceReweighter, lambda *given: ResampledEstimator(given[0])])
def test_a_cleaner_names_the_number_that_its_refit_cannot_take(cleaner):
    huge = X.copy()
    huge[:, 1] *= 1e200
    with pytest.raises(ValueError, match=r"^column 1 of X is \S+ in row \d+, too large to be squared \("):
        cleaner(Ridge(), KERNEL).fit(huge, VALUE)


def test_gradients_of_a_model_of_the_users_name_the_number():
    huge = X.copy()
    huge[50, 2] = -1e200
    with pytest.raises(ValueError, match=r"column 2 of X is -1e[+]200 in row 50"):
        Influence(Ridge()).fit(huge, VALUE)


def test_columns_near_one_keep_every_digit_and_offsets_are_taken_off():
    ordinary = NearOne().fit_transform(X)
    ratio = np.abs(ordinary / X)
    np.testing.assert_array_equal(ratio, np.broadcast_to(np.exp2(np.round(np.log2(ratio[0]))), X.shape))
    far = NearOne().fit_transform(X * [1, 1e-200, 1e200, 1] + [1e9, 0, 0, 0])
    assert (np.abs(far) < 10).all()
    sparse = NearOne().fit(sp.csr_array(X)).transform(sp.csr_array(1e300 * X))
    assert (np.abs(sparse.data.astype(np.float32)) <= 1e15).all()
    standard = Standard.of(X * [1, 1e-310, 1e307, 1e9] + [1e9, 0, 0, 0])
    found = standard.apply(X * [1, 1e-310, 1e307, 1e9] + [1e9, 0, 0, 0])
    np.testing.assert_allclose(found, StandardScaler().fit_transform(X), atol=1e-6)
