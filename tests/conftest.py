"""One thread, no display and scikit-learn's default configuration, for every test."""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # before NumPy and torch are loaded; workers inherit it
os.environ["MPLBACKEND"] = "Agg"

import pytest  # noqa: E402
import sklearn  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def default_config():
    """Undo what a test sets with sklearn.set_config."""
    with sklearn.config_context():
        yield
