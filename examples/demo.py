"""Clean a real table whose labels are partly wrong, through the shell, and check the result against the truth.

The table is scikit-learn's digits: 1,797 handwritten digits of 8 x 8 pixels. A third is held out as the test set, whose
labels stay right. Of the other labels 20 % are replaced by another digit, drawn uniformly. `sktda clean` is not told
which, nor how many. The column `id` is the row number in the original data.

Run with `make demo`, or `python examples/demo.py FOLDER`.
"""

import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

SEED = 0
NOISE = 0.2
MODELS = {
    "nearest neighbour": KNeighborsClassifier(n_neighbors=1),
    "logistic regression": make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)),
    "random forest": RandomForestClassifier(random_state=SEED),
}


def make_tables() -> tuple[pd.DataFrame, pd.DataFrame, pd.Series]:
    """(training table with wrong labels, test table, true labels of the training table by id)."""
    X, y = load_digits(return_X_y=True, as_frame=True)
    table = X.astype(int).assign(label=y).rename_axis("id")
    train, test = train_test_split(table, test_size=1 / 3, stratify=y, random_state=SEED)
    truth = train["label"].copy()
    rng = np.random.default_rng(SEED)
    wrong = rng.choice(len(train), size=round(NOISE * len(train)), replace=False)
    column = train.columns.get_loc("label")
    train.iloc[wrong, column] = (truth.iloc[wrong] + rng.integers(1, 10, len(wrong))) % 10
    return train, test, truth


def run_shell(*arguments: str) -> None:
    """Run `sktda` as a user would, with this interpreter."""
    print("$ sktda", shlex.join(arguments), flush=True)
    subprocess.run([sys.executable, "-m", "sktda", *arguments], check=True)


def accuracy(name: str, train: pd.DataFrame, test: pd.DataFrame) -> float:
    """Share of the test rows that the model gets right after it was trained on these rows."""
    model = MODELS[name].fit(train.drop(columns="label"), train["label"])
    return model.score(test.drop(columns="label"), test["label"])


def main(folder: Path) -> None:
    """Make the dirty table, clean it, compare with the truth."""
    folder.mkdir(parents=True, exist_ok=True)
    dirty_path, clean_path, report_path = (folder / name for name in ("dirty.csv", "clean.csv", "report.html"))
    dirty, test, truth = make_tables()
    dirty.to_csv(dirty_path)
    print(f"{len(dirty)} training rows, {len(test)} test rows; seed {SEED}\n")
    outputs = ["--out", str(clean_path), "--report", str(report_path), "--force"]
    run_shell("clean", str(dirty_path), "--target", "label", "--index", "id", *outputs)

    clean = pd.read_csv(clean_path, index_col="id")
    injected = dirty.index[dirty["label"] != truth]
    dropped = dirty.index.difference(clean.index)
    found = injected.intersection(dropped)
    print("\nWrong labels")
    print(f"  injected         {len(injected):5d}   ({len(injected) / len(dirty):.1%} of the training rows)")
    print(f"  dropped          {len(dropped):5d}   ({len(dropped) / len(dirty):.1%}, the estimated noise rate)")
    print(f"  found            {len(found):5d}")
    print(f"  precision        {len(found) / max(1, len(dropped)):5.3f}   (share of the dropped rows that were wrong)")
    print(f"  recall           {len(found) / len(injected):5.3f}   (share of the wrong rows that were dropped)")

    oracle = dirty.drop(index=injected)
    print(f"\nAccuracy on the {len(test)} test rows, whose labels are right, by the rows that a model was trained on")
    print(f"  {'':20s} {'all':>8s} {'cleaned':>8s} {'truly right':>12s}")
    for name in MODELS:
        before, after, best = (accuracy(name, rows, test) for rows in (dirty, clean, oracle))
        print(f"  {name:20s} {before:8.3f} {after:8.3f} {best:12.3f}")
    print(f"\nThe cleaned table is {clean_path}, the report is {report_path}: open it in a browser.")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo"))
