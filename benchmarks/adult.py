"""Does cleaning help boosting? Adult, 20 % of the labels flipped, the share to remove picked by InfluencePrunerCV.

    python benchmarks/adult.py           # three seeds; half an hour on two cores
    python benchmarks/adult.py --quick   # made rows, one seed, nothing written: does it run?

The rows that the data set marks for training (32,561), 20 % of their labels flipped at random; the marked test rows
(16,281) keep theirs. HistGradientBoostingClassifier is trained on the rows as given, on what InfluencePrunerCV leaves
(shares 0 to 30 %, 5 folds, judged on labels as given), and on the right rows only. Rows go class by class, each the
same share (the default), or wherever the scores are lowest (stratify=False): of two classes of which one is rare, most
wrong labels are in the rare one. ComplexityGap needs no model; SelfConfidence predicts each row by the boosting itself.
Four numbers are shown: the score of the picked share within the search, which is the best of several and so a little
too high; the honest one, a nested 3-fold cross-validation of search and all (of the first seed); both on labels of
which a fifth is wrong, so that no model can reach more than about 80 % of its accuracy plus 20 % of its errors; and the
accuracy on test rows with right labels, which nobody has outside of a benchmark. Writes benchmarks/results/adult.json;
`python benchmarks/tables.py` makes the table from it.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from shared.common import begin, data_folder, flip, load, measured, save

from sktda.selection import prune

SEEDS, RATIOS, RATE = (0, 1, 2), (0, 0.05, 0.1, 0.2, 0.3), 0.2
WAYS = [(name, stratify) for stratify in (True, False) for name in ("ComplexityGap", "SelfConfidence")]


def split() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(X, y, mask of the test rows); without the marks of the data set the last third."""
    X, y = load("adult")
    if folder := data_folder():
        return X, y, np.load(folder / "adult.npz")["is_test"]
    return X, y, np.arange(len(y)) >= min(32_561, 2 * len(y) // 3)


def part(attributor: str, stratify: bool, seed: int, nested: bool, ratios: tuple = RATIOS, trees: int = 100) -> dict:
    """One attributor on one draw of flips."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.model_selection import cross_val_score

    from sktda import InfluencePrunerCV, attribution

    X, y, is_test = split()
    X_test, y_test = X[is_test], y[is_test]
    X, y = X[~is_test], y[~is_test]
    given, wrong = flip(y, "uniform", RATE, seed)
    model = HistGradientBoostingClassifier(max_iter=trees, random_state=seed)
    scores = getattr(attribution, attributor)(random_state=seed)
    pruner = InfluencePrunerCV(model, scores, prune_ratios=ratios, stratify=stratify, random_state=seed)
    start = time.perf_counter()
    pruner.fit(X, given)
    found = {
        "attributor": attributor,
        "stratify": stratify,
        "seed": seed,
        "seconds": time.perf_counter() - start,
        "ratio": pruner.best_prune_ratio_,
        "wrong_among_removed": float(wrong[~pruner.support_].mean()) if pruner.n_pruned_ else None,
        "cv": {str(r): s for r, s in zip(ratios, pruner.cv_results_["mean_test_score"].tolist(), strict=True)},
        "before": model.fit(X, given).score(X_test, y_test),
        "after": pruner.score(X_test, y_test),
        "oracle": model.fit(X[~wrong], y[~wrong]).score(X_test, y_test),
        "test": {},
    }
    for ratio in ratios:
        support = prune(
            pruner.scores_,
            round(ratio * len(given)),
            np.unique(given, return_inverse=True)[1],
            stratify=stratify,
            floor=1,
        )
        found["test"][str(ratio)] = model.fit(X[support], given[support]).score(X_test, y_test)
    if nested:
        found["nested"] = float(cross_val_score(pruner, X, given, cv=3).mean())
        found["nested_plain"] = float(cross_val_score(model, X, given, cv=3).mean())
    return {"row": found}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options = begin(parser, arguments)
    few = (RATIOS[::3], 5) if options.quick else ()
    rows = []
    for seed in SEEDS[:1] if options.quick else SEEDS:
        for attributor, stratify in WAYS[:1] if options.quick else WAYS:
            nested = seed == SEEDS[0] and (attributor, stratify) == WAYS[0]
            row = measured(part, attributor, stratify, seed, nested, *few)["row"]
            rows.append(row)
            print(
                f"{attributor:15s} {'by class' if stratify else 'anywhere'} seed {seed}: share {row['ratio']:.2f}, "
                "in the search "
                f"{max(row['cv'].values()):.4f} (nothing removed {row['cv']['0']:.4f}), clean test rows "
                f"{row['before']:.4f} -> {row['after']:.4f} "
                f"(right rows only {row['oracle']:.4f}), {row['seconds']:.0f} s",
                flush=True,
            )
            save("adult", rows)


if __name__ == "__main__":
    main()
