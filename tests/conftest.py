"""One thread, no display and scikit-learn's default configuration, for every test."""

import contextlib
import copy
import functools
import gc
import inspect
import os
import sys

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # before NumPy and torch are loaded; workers inherit it
os.environ["MPLBACKEND"] = "Agg"

import pytest  # noqa: E402

gc.disable()  # until the tests begin: imports and collection make next to no garbage, and it takes long to see that


def pytest_collection_finish():
    """Garbage collections during the tests leave out the millions of objects that imports and collection made."""
    if "sklearn.base" in sys.modules:
        remember_signatures()
        know_plain_arrays()
        read_once()
        seed_at_once()
        remember_names()
    if "torch" in sys.modules:
        seed_the_processor()
    if "joblib" in sys.modules:
        from tests.forked import fork_workers

        fork_workers()
        keep_workers()
    gc.freeze()
    gc.enable()


def remember_signatures():
    """Scikit-learn reads the signature of an estimator anew each time that it clones one, once for each tree of a
    forest: Python's `inspect` takes the signature that a function carries.

    Of scikit-learn's own only: tests give those of sktda other defaults.
    """
    kinds = [sys.modules["sklearn.base"].BaseEstimator]
    for kind in kinds:  # which grows
        kinds += kind.__subclasses__()
        if kind.__module__.startswith("sklearn.") and "__init__" in vars(kind):
            kind.__init__.__signature__ = inspect.signature(kind.__init__)


def read_once():
    """The digits are read from their file anew each time, which takes as long as most of the tests."""
    from sklearn.datasets import _base

    read = functools.cache(_base.load_gzip_compressed_csv_data)
    _base.load_gzip_compressed_csv_data = lambda *where, **options: copy.deepcopy(read(*where, **options))


def know_plain_arrays():
    """Scikit-learn looks long at every input to see whether it is a table of some library; plain arrays are none.

    And at what `numpy.unique` takes, each time that it looks for the classes.
    """
    import numpy as np
    from sklearn.externals.array_api_compat.common import _aliases
    from sklearn.utils import validation

    _aliases._unique_kwargs = functools.cache(_aliases._unique_kwargs)

    of_any = getattr(validation, "_nw_into_df_or_series", None)
    if of_any is not None:  # which it is in earlier versions
        validation._nw_into_df_or_series = lambda x: type(x) is not np.ndarray and of_any(x)


def keep_workers():
    """Workers stay: one that goes for want of work, while a task comes, can leave who asks waiting for ever."""
    from joblib._parallel_backends import LokyBackend

    *others, _ = LokyBackend.configure.__defaults__  # the last is idle_worker_timeout
    LokyBackend.configure.__defaults__ = (*others, 3_600)


def remember_names():
    """Nor are the names of its parameters read anew each time that an estimator is asked for their values."""
    base = sys.modules["sklearn.base"].BaseEstimator
    names = functools.cache(base._get_param_names.__func__)
    base._get_param_names = classmethod(lambda kind: list(names(kind)))


def seed_the_processor():
    """For each kind of accelerator that is not there, `torch.manual_seed` writes down where it was called from."""
    torch = sys.modules["torch"]
    if not torch.accelerator.is_available():
        torch.manual_seed = lambda seed: torch.default_generator.manual_seed(int(seed))


def seed_at_once():
    """NumPy seeds a generator from the system before it seeds it with the number that scikit-learn gives, three times
    for a tree: the numbers that are drawn are the same without.
    """
    import numpy as np
    from sklearn.utils import validation

    class Blank(np.random.bit_generator.ISeedSequence):
        def generate_state(self, n_words, dtype=np.uint32):
            return ones[:n_words]

    ones = [1] * 624  # numbers of Python, which NumPy reads here ten times as fast as those of an array
    blank, of_any = Blank(), validation.check_random_state

    def check_random_state(seed):
        if type(seed) is not int and not isinstance(seed, np.integer):
            return of_any(seed)
        bits = np.random.MT19937(blank)
        bits._legacy_seeding(seed)
        return np.random.RandomState(bits)

    assert check_random_state(7).bytes(8) == of_any(7).bytes(8)
    for module in list(sys.modules.values()):
        if vars(module).get("check_random_state") is of_any:
            module.check_random_state = check_random_state


@pytest.fixture(autouse=True)
def default_config():
    """Undo what a test sets with sklearn.set_config; more threads than one would make all later tests slower."""
    import sklearn  # here, as the process that only hands out the tests needs none of it
    import torch

    with sklearn.config_context():
        yield
    assert torch.get_num_threads() == 1


@contextlib.contextmanager
def fewer_trees():
    """Forests that a user gets unasked have a few trees, filters of pictures see a few patches: for files that are
    about what is done with their scores.

    Two hundred trees cost a third of a second, whatever the number of rows. How well the defaults find wrong labels
    is measured in tests/attribution, with all their trees, and what filters are in tests/patches.
    """
    import sklearn.ensemble

    from sktda.attribution import KernelForest, RobustResidual
    from sktda.attribution.predictions import data_oob, out_of_sample
    from sktda.patches import filters
    from sktda.report import comparison

    def smaller(kind):
        return lambda n_estimators=None, **options: getattr(sklearn.ensemble, kind)(20, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(KernelForest.__init__.__kwdefaults__, "n_estimators", 20)
        patch.setitem(RobustResidual.__init__.__kwdefaults__, "n_estimators", 50)
        patch.setattr(data_oob, "N_ESTIMATORS", 20)
        patch.setattr(filters, "DRAWN", 2_000)
        patch.setattr(out_of_sample, "ExtraTreesClassifier", smaller("ExtraTreesClassifier"))
        for kind in ("RandomForestClassifier", "RandomForestRegressor"):
            patch.setattr(comparison, kind, smaller(kind))
        yield


@pytest.fixture(scope="module")
def few_trees():
    with fewer_trees():
        yield


@contextlib.contextmanager
def shorter_training():
    """Nets that a user gets unasked take two epochs: for files that are about what is done with them."""
    from sktda.model import proxy

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proxy, "EPOCHS", (2, 2))
        yield


@pytest.fixture(scope="module")
def short_training():
    with shorter_training():
        yield


@pytest.fixture
def full_training(short_training, monkeypatch):
    """Default nets learn as much as those of users, in a file where they take two epochs."""
    from sktda.model import proxy

    monkeypatch.setattr(proxy, "EPOCHS", (6, 100))


@pytest.fixture
def all_trees(few_trees, monkeypatch):
    """The default kernel forest with the trees that users get, in a file with few."""
    from sktda.attribution import KernelForest

    monkeypatch.setitem(KernelForest.__init__.__kwdefaults__, "n_estimators", 200)


if os.environ.get("SKTDA_DEVICE"):  # "simulated" or "cuda": on this device
    from tests.device.placing import (  # noqa: F401
        placed,
        pytest_make_collect_report,
        pytest_runtest_call,
        pytest_runtest_setup,
    )
