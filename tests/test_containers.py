"""X, y and weights count by their cells: any container gives the scores of the plain array, or a sentence."""

import warnings
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse as sp
from sklearn.exceptions import ConvergenceWarning, DataConversionWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sktda import (
    CoresetSelector,
    InfluencePruner,
    InfluencePrunerCV,
    InfluenceReweighter,
    NoisyLabelDetector,
    ResampledEstimator,
)
from sktda.attribution import (
    ComplexityGap,
    DataOOB,
    InnerProduct,
    KernelForest,
    KNNShapley,
    LabelPosterior,
    PrecomputedScores,
    RobustResidual,
    SelfConfidence,
)
from sktda.data import check_weights, encode_target, plain_target

pytestmark = pytest.mark.usefixtures("few_trees")

N = 48
CLASS = np.arange(N) % 3
TEXT = np.array(["a", "b", "c"])[CLASS]
RNG = np.random.default_rng(0)
X = np.abs(np.round(4 * RNG.normal(size=(N, 4)) + 16 * RNG.normal(size=(3, 4))[CLASS]))
X[RNG.random(X.shape) < 0.2] = 0  # so that sparse matrices leave cells out
VALUE = np.round(X @ [1.0, 2.0, -1.0, 0.5] + RNG.normal(size=N), 2)
FRAME = pd.DataFrame(X, columns=list("abcd"))
WEIGHT = np.where(np.arange(N) % 4 == 0, 0.5, 1.5)


def forest():
    return KernelForest(n_estimators=10)


ATTRIBUTORS = {
    "KernelForest": forest,
    "LabelPosterior": lambda: LabelPosterior(forest()),
    "ComplexityGap": ComplexityGap,
    "KNNShapley": lambda: KNNShapley(random_state=0),
    "SelfConfidence": lambda: SelfConfidence(LogisticRegression(max_iter=300), cv=2),
    "DataOOB": lambda: DataOOB(LogisticRegression(max_iter=300), n_estimators=20),
    "InnerProduct": lambda: InnerProduct(LogisticRegression(max_iter=300)),
}
CLEANERS = {
    "detector": lambda: NoisyLabelDetector(forest()),
    "pruner": lambda: InfluencePruner(LogisticRegression(max_iter=300), forest()),
    "pruner by folds": lambda: InfluencePruner(LogisticRegression(max_iter=300), InnerProduct(), validation=2),
    "pruner_cv": lambda: InfluencePrunerCV(LogisticRegression(max_iter=300), forest(), prune_ratios=(0, 0.1), cv=2),
    "reweighter": lambda: InfluenceReweighter(LogisticRegression(max_iter=300), LabelPosterior(forest())),
    "coreset": lambda: CoresetSelector(forest(), random_state=0),
    "resampled": lambda: ResampledEstimator(LogisticRegression(max_iter=300), NoisyLabelDetector(forest())),
}
ALL = {**ATTRIBUTORS, **CLEANERS}
READ_NUMBERS = {name: ALL[name] for name in ("KernelForest", "detector", "pruner", "coreset", "resampled")}
REGRESSION = {
    "ComplexityGap": ComplexityGap,
    "RobustResidual": RobustResidual,
    "InnerProduct": lambda: InnerProduct(Ridge()),
    "detector": lambda: NoisyLabelDetector(ComplexityGap()),
    "pruner": lambda: InfluencePruner(Ridge(), ComplexityGap()),
    "coreset": lambda: CoresetSelector(ComplexityGap(), random_state=0),
}


class AsArray:
    """What says nothing of itself but `__array__`."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return np.array(self.values, dtype=dtype)


class Series(AsArray):
    """A column as polars has it: no iloc, a dtype that is none of NumPy's, and `cat` whatever it holds."""

    dtype = "Float64"
    cat = None

    def __init__(self, values):
        super().__init__(np.asarray(values))
        self.shape = self.values.shape

    def __len__(self):
        return len(self.values)

    def __getitem__(self, rows):
        taken = self.values[rows]
        return Series(taken) if np.ndim(taken) else taken


class Table(Series):
    """A table as polars has it: a list of names and a list of dtypes, rows and columns by `[]`."""

    def __init__(self, values, columns="abcd"):
        super().__init__(values)
        self.columns = list(columns)
        self.dtypes = ["Float64"] * len(self.columns)

    def __getitem__(self, key):
        rows, column = key if isinstance(key, tuple) else (key, Ellipsis)
        if column is Ellipsis:
            return Table(self.values[rows], self.columns)
        return Series(self.values[rows, column])


def read_only(values):
    values = values.copy()
    values.flags.writeable = False
    return values


def strided(values):
    wide = np.zeros((2 * len(values), *values.shape[1:]), values.dtype)
    wide[::2] = values
    return wide[::2]


def mapped(values, path):
    memmap = np.memmap(path, dtype=values.dtype, mode="w+", shape=values.shape)
    memmap[:] = values
    return memmap


def scores(estimator, X, y, **params):
    """What a fit found: scores, decisions and coefficients."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        estimator.fit(X, y, **params)
    found = [getattr(estimator, name) for name in ("scores_", "support_", "sample_weight_") if hasattr(estimator, name)]
    if hasattr(estimator, "sampler_"):
        found.append(estimator.sampler_.scores_)
    if hasattr(getattr(estimator, "estimator_", None), "coef_"):
        found.append(estimator.estimator_.coef_.ravel())
    if hasattr(estimator, "to_frame"):
        estimator.to_frame()
    return np.concatenate([np.asarray(each, dtype=float) for each in found if each is not None])


EXPECTED = {}


def expected(name, table, y, **params):
    key = name, id(table)
    if key not in EXPECTED:
        EXPECTED[key] = scores(table[name](), X, y, **params)
    return EXPECTED[key]


FEATURES = {
    "lists": lambda path: X.tolist(),
    "tuples": lambda path: tuple(map(tuple, X.tolist())),
    "only __array__": lambda path: AsArray(X),
    "memmap": lambda path: mapped(X, path / "X"),
    "read-only": lambda path: read_only(X),
    "Fortran": lambda path: np.asfortranarray(X),
    "strided": lambda path: strided(X),
    "reversed view": lambda path: X[::-1].copy()[::-1],
    "float16": lambda path: X.astype(np.float16).astype(np.float64),
    "big-endian": lambda path: X.astype(">f8"),
    "integers": lambda path: X.astype(np.int64),
    "objects": lambda path: X.astype(object),
    "decimals": lambda path: np.array([[Decimal(int(cell)) for cell in row] for row in X]),
    "frame": lambda path: FRAME,
    "frame of objects": lambda path: FRAME.astype(object),
    "frame of categories": lambda path: FRAME.astype("category"),
    "one column of objects": lambda path: FRAME.astype({"b": object}),
    "Int64": lambda path: FRAME.astype("Int64"),
    "Arrow": lambda path: FRAME.astype(pd.ArrowDtype(pa.float64())),
    "another index": lambda path: FRAME.set_index(np.arange(N)[::-1] * 7),
    "index of one value": lambda path: FRAME.set_index(np.zeros(N, dtype=int)),
    "Arrow table": lambda path: pa.table(FRAME),
    "polars-like": lambda path: Table(X),
    **{
        f"{form} {kind}": lambda path, name=f"{form}_{kind}": getattr(sp, name)(X)
        for form in ("csr", "csc", "coo", "dok", "lil", "bsr", "dia")
        for kind in ("matrix", "array")
    },
}
NOT_AS_SKLEARN = {"polars-like"}  # scikit-learn looks the library up, which is not installed


@pytest.mark.parametrize("form", FEATURES)
def test_features_in_any_container_have_the_scores_of_the_plain_array(form, tmp_path):
    """All of them read X in one place: three forms for each, of the others four by turns, a cleaner among them."""
    given = FEATURES[form](tmp_path)
    names = set(ALL)
    if form not in {"dok matrix", "only __array__", "frame of objects"}:
        turn = list(FEATURES).index(form)
        names = {list(kinds)[(turn + k) % len(kinds)] for kinds in (ATTRIBUTORS, CLEANERS) for k in (0, 3)}
    if form in NOT_AS_SKLEARN:
        names = set(ALL) - {"pruner", "InnerProduct", "SelfConfidence", "resampled"}
    for name in sorted(names):
        found = scores(ALL[name](), given, CLASS)
        np.testing.assert_allclose(found, expected(name, ALL, CLASS), rtol=1e-4, atol=1e-6, err_msg=f"{name} of {form}")


@pytest.mark.parametrize("fill", [0.0, 3.0, np.nan])
def test_sparse_columns_that_leave_out_any_value(fill):
    sparse = FRAME.astype(pd.SparseDtype(float, fill))
    for name in ("KernelForest", "detector"):
        np.testing.assert_allclose(scores(ALL[name](), sparse, CLASS), expected(name, ALL, CLASS), rtol=1e-6)
    frame = FRAME.replace(3.0, np.nan).astype(pd.SparseDtype(float, fill))  # an encoder reads it
    assert NoisyLabelDetector(forest()).fit(frame, CLASS).encoder_ is not None


def test_half_precision_is_exact_where_its_numbers_are():
    for name in READ_NUMBERS:
        half = scores(READ_NUMBERS[name](), X.astype(np.float16), CLASS)
        np.testing.assert_allclose(half, expected(name, ALL, CLASS), rtol=1e-3, atol=1e-5)


LABELS = {
    "text": lambda path: TEXT,
    "list": lambda path: CLASS.tolist(),
    "list of texts": lambda path: TEXT.tolist(),
    "objects": lambda path: CLASS.astype(object),
    "NumPy integers as objects": lambda path: np.array([np.int64(k) for k in CLASS], dtype=object),
    "decimals": lambda path: np.array([Decimal(int(k)) for k in CLASS]),
    "floats as objects": lambda path: CLASS.astype(float).astype(object),
    "whole floats": lambda path: CLASS.astype(float),
    "text as objects": lambda path: TEXT.astype(object),
    "NumPy's strings": lambda path: TEXT.astype(np.dtypes.StringDType()),
    "Series": lambda path: pd.Series(CLASS, index=np.arange(N)[::-1]),
    "Series of objects": lambda path: pd.Series(CLASS, dtype=object),
    "string": lambda path: pd.Series(TEXT, dtype="string"),
    "categories": lambda path: pd.Series(TEXT, dtype="category"),
    "categories in another order": lambda path: pd.Series(pd.Categorical(TEXT, categories=list("cba"), ordered=True)),
    "Int64": lambda path: pd.Series(CLASS, dtype="Int64"),
    "Arrow": lambda path: pd.Series(TEXT, dtype=pd.ArrowDtype(pa.string())),
    "Arrow array": lambda path: pa.array(CLASS),
    "only __array__": lambda path: AsArray(TEXT),
    "polars-like": lambda path: Series(CLASS),
    "memmap": lambda path: mapped(CLASS, path / "y"),
    "read-only": lambda path: read_only(CLASS),
    "big-endian": lambda path: CLASS.astype(">i8"),
    "strided": lambda path: strided(CLASS),
}


@pytest.mark.parametrize("form", LABELS)
def test_labels_in_any_container_have_the_scores_of_the_plain_array(form, tmp_path):
    given = LABELS[form](tmp_path)
    turn = list(LABELS).index(form)
    some = {list(kinds)[turn % len(kinds)] for kinds in (ATTRIBUTORS, CLEANERS)}
    names = set(ALL) if form in {"objects", "only __array__"} else some
    for name in sorted(names):
        found = scores(ALL[name](), X, given)
        np.testing.assert_allclose(found, expected(name, ALL, CLASS), rtol=1e-6, atol=1e-9, err_msg=f"{name} of {form}")


@pytest.mark.parametrize(
    "y",
    [CLASS == 0, (CLASS == 0).astype(object), pd.Series(CLASS == 0, dtype="boolean"), (CLASS == 0).astype(float)],
    ids=["bool", "objects", "nullable", "float"],
)
def test_booleans_are_two_classes(y):
    for name in ("KernelForest", "detector", "pruner"):
        two = scores(ALL[name](), X, (CLASS == 0).astype(int))
        np.testing.assert_allclose(scores(ALL[name](), X, y), two, rtol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_labels_in_a_column_have_the_same_scores_and_folds(name):
    form = [lambda y: y[:, None], lambda y: pd.DataFrame({"y": y})][list(ALL).index(name) % 2]
    with pytest.warns(DataConversionWarning, match="A column-vector y"):
        found = scores(ALL[name](), X, form(CLASS))
    np.testing.assert_allclose(found, expected(name, ALL, CLASS), rtol=1e-6)


def test_labels_in_a_column_keep_the_stratified_folds_of_cross_fitting():
    rare = np.where(np.arange(N) < 42, 0, 1)
    one, column = (
        InnerProduct(LogisticRegression(), objective="validation", random_state=0).fit(X, y) for y in (rare, rare * 1.0)
    )
    np.testing.assert_allclose(one.scores_, column.scores_)
    with pytest.warns(DataConversionWarning):
        column = InnerProduct(LogisticRegression(), objective="validation", random_state=0).fit(X, rare[:, None] * 1.0)
    np.testing.assert_allclose(one.scores_, column.scores_)


@pytest.mark.parametrize(
    "y",
    [
        VALUE.tolist(),
        VALUE.astype(object),
        np.array([Decimal(str(value)) for value in VALUE]),
        pd.Series(VALUE, dtype=object),
        pd.Series(VALUE, dtype="Float64"),
        pd.Series(VALUE, dtype=pd.ArrowDtype(pa.float64())),
        VALUE.astype(">f8"),
        AsArray(VALUE),
        Series(VALUE),
        read_only(VALUE),
        strided(VALUE),
    ],
    ids=lambda y: f"{type(y).__name__} {getattr(y, 'dtype', '')}",
)
def test_numbers_to_predict_in_any_container_have_the_scores_of_the_plain_array(y):
    for name in REGRESSION:
        found = scores(REGRESSION[name](), X, y)
        np.testing.assert_allclose(found, expected(name, REGRESSION, VALUE), rtol=1e-6, err_msg=name)


# ---------------------------------------------------------------- what cannot be read is named


def spoilt(values, cell, row=7):
    values = np.array(values, dtype=object)
    values[row] = cell
    return values


DAYS = pd.Timestamp("2020-01-01") + pd.to_timedelta(np.arange(N), "D")
BAD_FEATURES = {
    "dates": (FRAME.assign(b=DAYS), "column 'b' of X holds dates"),
    "dates with a zone": (FRAME.assign(b=DAYS.tz_localize("UTC")), "column 'b' of X holds dates"),
    "dates as objects": (FRAME.assign(b=DAYS.astype(object)), "column 'b' of X holds dates"),
    "an array of dates": (X.astype(np.int64).astype("M8[D]"), "X holds dates"),
    "durations": (FRAME.assign(b=DAYS - DAYS[0]), "column 'b' of X holds durations"),
    "complex": (X + 1j, "Complex data not supported: X"),
    "a complex column": (FRAME.assign(b=X[:, 1] + 1j), "Complex data not supported: column 'b'"),
    "sparse complex": (sp.csr_array(X + 1j), "Complex data not supported: X"),
    "equal names": (FRAME.set_axis(["a", "b", "b", "c"], axis=1), "2 columns named 'b'"),
    "records": (FRAME.to_records(index=False), "structured array"),
    "nothing": (None, "Expected 2D array"),
    "periods": (FRAME.assign(b=pd.PeriodIndex(DAYS, freq="D")), "column 'b' of X is no number in row 0"),
    "NA among objects": (FRAME.assign(b=spoilt(X[:, 1], pd.NA)), r"contains NaN: column 'b'.* row 7"),
}

ENCODED = {"dates", "dates with a zone", "dates as objects", "durations", "periods", "NA among objects"}


@pytest.mark.parametrize("bad", BAD_FEATURES)
def test_features_that_are_no_numbers_are_refused_by_name(bad):
    given, whole = BAD_FEATURES[bad]
    for name in ("KernelForest", "SelfConfidence", "DataOOB", "InnerProduct", *CLEANERS):
        if name in ("detector", "coreset") and bad in ENCODED:
            continue  # it encodes such a column, and says how
        in_part = name == "pruner by folds" or (name == "pruner_cv" and "7" in whole)
        message = whole.partition(".* row 7")[0] if in_part else whole  # of a part of the rows
        with pytest.raises((ValueError, TypeError), match=message):
            ALL[name]().fit(given, CLASS)


MISSING_CELLS = {
    "text": (
        FRAME.assign(b=np.where(np.arange(N) % 2, "x", "y")),
        "could not convert string to float: columns 'b' of X",
    ),
    "numbers as text": (FRAME.assign(b=X[:, 1].astype(str)), r"columns 'b' of X .* give X.astype\(float\)"),
    "text in an array": (np.where(X[7, 1] == X, "cat", X.astype(object)), "columns .* of X are not numbers"),
    "an array of text": (X.astype(str), "columns 0, 1, 2, 3 of X are not numbers"),
    "NaN": (FRAME.assign(b=spoilt(X[:, 1], np.nan).astype(float)), "NaN: column 'b' has 1 values .* row 7"),
    "None": (FRAME.assign(b=spoilt(X[:, 1], None)), "NaN: column 'b' has 1 values .* row 7"),
    "NA": (pd.DataFrame(spoilt(X, pd.NA)), "NaN: column .* row 7"),
    "nullable": (
        FRAME.astype("Int64").assign(b=pd.array(spoilt(X[:, 1], pd.NA), "Int64")),
        "column 'b' has 1 .* row 7",
    ),
    "infinity": (np.where(X[7, 1] == X, np.inf, X), r"contains infinity: column \d"),
    "a dict": (spoilt(X, {"a": 1}), r"column 0 of X is no number in row 7: float\(\) argument must be"),
    "ragged": ([[1, 2], [3]] * (N // 2), "rows differ in length"),
    "matrix": (X.view(np.matrix), r"np\.matrix is not supported"),
}


@pytest.mark.parametrize("bad", MISSING_CELLS)
def test_cells_that_are_no_numbers_are_named(bad):
    given, said = MISSING_CELLS[bad]
    framed = isinstance(given, pd.DataFrame)
    for name in READ_NUMBERS:
        if framed and (name in ("detector", "coreset") or (name == "resampled" and bad == "numbers as text")):
            continue  # it encodes such a column, and says how
        by_the_model = framed and name == "resampled"
        message = "could not convert string to float|contains NaN" if by_the_model else said
        with pytest.raises((ValueError, TypeError), match=message):
            READ_NUMBERS[name]().fit(given, CLASS)


def test_dates_are_the_business_of_a_transformer_where_there_is_one():
    frame = FRAME.assign(b=DAYS)
    days = FunctionTransformer(lambda X: X.assign(b=(X["b"] - DAYS[0]).dt.days).to_numpy())
    model = make_pipeline(days, LogisticRegression(max_iter=300))
    plain = days.fit_transform(frame)
    for wrap in (lambda model: SelfConfidence(model, cv=2), InnerProduct):
        found, same = wrap(model).fit(frame, CLASS), wrap(LogisticRegression(max_iter=300)).fit(plain, CLASS)
        np.testing.assert_allclose(found.scores_, same.scores_, rtol=1e-3)


BAD_LABELS = {
    "1 and '1'": (spoilt(CLASS, "1"), "mix of int, str .*row 7 is '1'"),
    "a list of 1 and '1'": (spoilt(CLASS, "1").tolist(), "mix of int, str .*row 7 is '1'"),
    "NA": (spoilt(TEXT, pd.NA), "contains <NA>: 1 rows .* row 7"),
    "NaN": (spoilt(TEXT, np.nan), "contains NaN: 1 rows .* row 7"),
    "a list with NaN": (spoilt(TEXT, np.nan).tolist(), "contains NaN: 1 rows .* row 7"),
    "NaT": (spoilt(CLASS, pd.NaT), "contains NaT: 1 rows .* row 7"),
    "None": (spoilt(CLASS, None), "contains None: 1 rows .* row 7"),
    "string NA": (pd.Series(spoilt(TEXT, pd.NA), dtype="string"), "1 rows .* row 7"),
    "category NA": (pd.Series(spoilt(TEXT, None), dtype="category"), "1 rows .* row 7"),
    "Int64 NA": (pd.Series(spoilt(CLASS, pd.NA), dtype="Int64"), "1 rows .* row 7"),
    "boolean NA": (pd.Series(spoilt(CLASS == 0, pd.NA), dtype="boolean"), "1 rows .* row 7"),
    "masked": (np.ma.array(CLASS, mask=np.arange(N) == 7), "masked value: 1 rows .* row 7"),
    "infinity": (spoilt(CLASS, np.inf).astype(float), "infinity .* row 7"),
    "complex": (CLASS + 0j, "Complex data not supported: y"),
    "dates": (CLASS.astype("M8[D]"), "y holds dates"),
    "durations": (pd.Series(CLASS.astype("m8[s]")), "y holds dates or durations"),
    "bytes": (TEXT.astype("S"), "labels are bytes"),
    "dicts": ([{"a": k} for k in CLASS.tolist()], "labels are of type dict"),
    "sparse": (sp.csr_array(CLASS[:, None]), r"give y\.toarray"),
    "no rows": (CLASS[:0], "Found array with 0 sample|y is empty"),
    "one number": (3, "1d array"),
    "other length": (CLASS[:-1], "inconsistent numbers of samples"),
    "several columns": (np.column_stack([CLASS, CLASS]), r"1d array, got an array of shape \(\d+, 2\)"),
    "one class": (CLASS * 0, "1 class|only one class"),
}


@pytest.mark.parametrize("bad", BAD_LABELS)
def test_labels_that_are_none_are_refused_by_row(bad):
    given, message = BAD_LABELS[bad]
    for name in sorted(ALL):
        with pytest.raises(ValueError, match=message):
            ALL[name]().fit(X, given)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (np.nan, "NaN"),
        (None, "None"),
        (pd.NA, "<NA>"),
        (pd.NaT, "NaT"),
        (np.inf, "infinity"),
        ("cat", "mix of float, str"),
    ],
    ids=str,
)
def test_numbers_to_predict_are_refused_by_row(cell, message):
    for name in REGRESSION:
        with pytest.raises(ValueError, match=rf"{message}.* row 7"):
            REGRESSION[name]().fit(X, spoilt(VALUE, cell))


def test_no_rows_one_row_and_two_rows():
    for n, message in ((0, "0 sample"), (1, "1 class|1 sample|only one class")):
        for name in sorted(set(ALL)):
            with pytest.raises(ValueError, match=message):
                ALL[name]().fit(X[:n], CLASS[:n])
    assert forest().fit(X[:2], CLASS[:2]).scores_.shape == (2,)


def test_a_value_near_the_largest_float_leaves_finite_scores():
    huge = X.copy()
    huge[3, 1], huge[4, 1] = 1.7e308, -1.7e308
    for name in ("KernelForest", "ComplexityGap", "KNNShapley", "detector", "coreset"):
        assert np.isfinite(scores(ALL[name](), huge, CLASS)).all()


# ---------------------------------------------------------------- weights


@pytest.mark.parametrize(
    "weight",
    [
        WEIGHT.tolist(),
        tuple(WEIGHT.tolist()),
        WEIGHT.astype(object),
        pd.Series(WEIGHT, index=np.arange(N)[::-1] + 100),
        pd.Series(WEIGHT, dtype="Float64"),
        pd.Series(WEIGHT, dtype=pd.ArrowDtype(pa.float64())),
        WEIGHT.astype(np.float16),
        read_only(WEIGHT),
    ],
    ids=lambda weight: f"{type(weight).__name__} {getattr(weight, 'dtype', '')}",
)
def test_weights_in_any_container_count_by_position(weight):
    for name in ("InnerProduct", "SelfConfidence", "pruner by folds", "resampled"):
        plain = scores(ALL[name](), X, CLASS, sample_weight=WEIGHT)
        np.testing.assert_allclose(scores(ALL[name](), X, CLASS, sample_weight=weight), plain, rtol=1e-6)
    checked = check_weights(weight, N)
    checked[0] = 3.0  # a copy, in any case
    assert np.asarray(weight)[0] == 0.5


BAD_WEIGHTS = {
    "negative": (spoilt(WEIGHT, -1.0).astype(float), "is -1 in row 7"),
    "NaN": (spoilt(WEIGHT, np.nan).astype(float), "is nan in row 7"),
    "None": (spoilt(WEIGHT, None), "is nan in row 7"),
    "NA": (spoilt(WEIGHT, pd.NA), "is nan in row 7"),
    "infinity": (spoilt(WEIGHT, np.inf).astype(float), "is inf in row 7"),
    "complex": (WEIGHT + 1j, r"is \(0.5\+1j\) in row 0"),
    "text": (spoilt(WEIGHT, "2"), "is '2' in row 7"),
    "zeros": (0 * WEIGHT, "all zero"),
    "huge": (1e308 * WEIGHT, "reaches 1.5e[+]308 .*divide all by the largest"),
    "tiny": (1e-310 * WEIGHT, "reaches 1.5e-310 .*divide all by the largest"),
    "other length": (WEIGHT[:-1], rf"shape \({N - 1},\), but one weight per row is needed: \({N},\)"),
    "column": (WEIGHT[:, None], rf"shape \({N}, 1\), but one weight per row is needed: \({N},\)"),
}


@pytest.mark.parametrize("bad", BAD_WEIGHTS)
def test_weights_that_are_none_are_refused_by_row(bad):
    given, message = BAD_WEIGHTS[bad]
    for name in sorted(set(ALL) - {"detector", "coreset", "resampled"}):  # take none, or leave it to scikit-learn
        with pytest.raises(ValueError, match=message):
            ALL[name]().fit(X, CLASS, sample_weight=given)


# ---------------------------------------------------------------- the doors themselves


def test_a_series_keeps_its_index_and_a_column_of_numbers_its_shape():
    index = np.arange(N)[::-1]
    plain = plain_target(pd.Series(CLASS, dtype=object, index=index, name="label"))
    assert plain.dtype == np.int64
    assert plain.index.tolist() == index.tolist()
    assert plain.name == "label"
    assert plain_target(VALUE[:, None]).shape == (N, 1)  # nets are trained on columns
    assert plain_target(np.zeros((N, 2))).shape == (N, 2)
    assert plain_target(None) is None


@pytest.mark.parametrize("number", [10**30, 2**70, Decimal("0.5")])
def test_numbers_that_numpy_has_no_integer_for_are_floats(number):
    task, values, _ = encode_target([number * k for k in range(40)], "regression")
    assert task == "regression"
    np.testing.assert_allclose(values, [float(number * k) for k in range(40)])


def test_scores_given_beforehand_need_no_numbers():
    pruner = InfluencePruner(LogisticRegression(), PrecomputedScores(np.arange(N) * 1.0)).fit(X, CLASS.astype(object))
    assert pruner.n_pruned_ == round(0.1 * N)
