"""Wrong labels from class probabilities that are given: `PrecomputedProbabilities` beside cleanlab's scores.

    python benchmarks/given_probabilities.py [--quick] [--parts published checked tables]

"published": the out-of-sample probabilities of five nets, and their mean, on CIFAR-10N (aggregate and worst labels of
humans), CIFAR-10S (planted) and roman numerals that Kuan and Mueller 2022 ("Model-Agnostic Label Quality Scoring to
Detect Real-World Label Errors") published. They are read from SKTDA_DATA/data/label-error-detection-benchmarks, a clone
of github.com/cleanlab/label-error-detection-benchmarks (250 MB), and no part of this repository.
"checked": the cross-validated probabilities of four test sets (MNIST, CIFAR-10, IMDb, 20news) whose labels Northcutt,
Athalye and Mueller 2021 ("Pervasive Label Errors in Test Sets Destabilize Machine Learning Benchmarks") had checked
where confident learning doubted them, by five people each. All rows are ranked, and those that were checked are judged:
wrong are those whose label fewer than three people gave, 15, 54, 725 and 82 as in the paper. They are read from
SKTDA_DATA/data/label-errors, a clone of github.com/cleanlab/label-errors (the files of these sets are 5 MB).
"tables": 5-fold probabilities of three classifiers on up to 600 rows of the tables of tables_battery.py with planted
noise. All compare AUROC and average precision with the five scores of cleanlab, the best of which is chosen after the
fact for every cell, and, but for "checked", the errors of the detector's two estimates of the share of wrong labels
(contamination="auto" and "confident_joint") with that of its calibrated joint.
Writes benchmarks/results/given_probabilities.json (--quick: one table, nothing).
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Iterator

import numpy as np
from shared.battery import SETTINGS, plant, table_data, table_names
from shared.common import begin, data_folder, has, quick, save

FOLDER = "label-error-detection-benchmarks"
SETS = {
    "CIFAR-10N aggregate": "cifar-10n-aggregate/cifar-10n-png_noise_type_aggre_cv_",
    "CIFAR-10N worst": "cifar-10n-worst/cifar-10n-png_noise_type_worst_cv_",
    "CIFAR-10S": "cifar-10/cifar10_train_dataset_noise_amount_0.2_sparsity_0.4_cv_",
    "roman numerals": "roman-numeral/roman-numeral_train_val_dataset_cv_",
}
NETS = {
    "ResNet-18": "resnet18",
    "ResNet-50d": "resnet50d",
    "EfficientNet-B1": "efficientnet_b1",
    "Twins PCPVT": "twins_pcpvt_base",
    "Swin": "swin_base_patch4_window7_224",
}
SCORES = {  # cleanlab's: method, adjusted by class
    "self-confidence": ("self_confidence", False),
    "self-confidence, adjusted": ("self_confidence", True),
    "normalized margin": ("normalized_margin", False),
    "normalized margin, adjusted": ("normalized_margin", True),
    "confidence-weighted entropy": ("confidence_weighted_entropy", False),
}
CHECKED = {"MNIST": "mnist", "CIFAR-10": "cifar10", "IMDb": "imdb", "20news": "20news"}
MAJORITY = 3  # of five people
ROWS, SEEDS = 600, (0, 1, 2)
Known = np.ndarray | slice  # mask of the rows of which it is known whether they are wrong
Cell = tuple[dict, np.ndarray, np.ndarray, np.ndarray, Known]  # what, probabilities, given labels, which are wrong
ALL = slice(None)


def published() -> Iterator[Cell]:
    """The 24 cells; none where the files are not there."""
    folder = data_folder()
    if folder is None or not (folder / FOLDER).exists():
        return
    for name, start in SETS.items():
        places = {net: folder / FOLDER / "src" / "experiments" / f"{start}{file}" for net, file in NETS.items()}
        first = next(iter(places.values()))
        if name == "roman numerals":
            y, wrong = np.load(first / "labels.npy"), np.load(first / "label_errors_mask.npy")
        else:
            y = np.load(first / "noisy_labels.npy")
            wrong = np.load(first / "true_labels.npy") != y
        found = {net: np.load(place / "pred_probs.npy").astype(float) for net, place in places.items()}
        for net, p in {**found, "mean of all": np.mean(list(found.values()), axis=0)}.items():
            yield {"part": "published", "set": name, "model": net}, p, y.astype(int), wrong.astype(bool), ALL


def checked() -> Iterator[Cell]:
    """Four test sets that people have looked at; none where the files are not there."""
    folder = data_folder()
    if folder is None or not (folder / "label-errors").exists():
        return
    folder = folder / "label-errors"
    for name, file in CHECKED.items():
        p = np.load(folder / "cross_validated_predicted_probabilities" / f"{file}_test_set_pyx.npy").astype(float)
        y = np.load(folder / "original_test_labels" / f"{file}_test_set_original_labels.npy").astype(int)
        seen = json.loads((folder / "mturk" / f"{file}_mturk.json").read_text())
        rows = [row["id"] for row in seen]
        if file == "imdb":  # of files
            files = json.loads((folder / "dataset_indexing" / "imdb_test_set_index_to_filename.json").read_text())
            places = {f"test/{name.removesuffix('.txt')}": row for row, name in enumerate(files)}
            rows = [places[name] for name in rows]
        wrong, known = np.zeros((2, len(y)), dtype=bool)
        known[rows] = True
        wrong[rows] = [row["mturk"]["given"] < MAJORITY for row in seen]
        about = {"part": "checked", "set": name, "n_checked": int(known.sum()), "n_wrong": int(wrong.sum())}
        yield about, p, y, wrong, known


def tables() -> Iterator[Cell]:
    """Tables with planted noise, by three classifiers."""
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    names = ["wine"] if quick() else table_names()
    for name in names:
        X, y = table_data(name, ROWS)
        for setting in SETTINGS:
            for seed in SEEDS[:1] if quick() else SEEDS:
                given, wrong = plant(y, setting, seed)
                given = np.unique(given, return_inverse=True)[1]
                if np.bincount(given).min() < 5 or not wrong.any():
                    continue
                models = {
                    "logistic": make_pipeline(StandardScaler(), LogisticRegression(max_iter=300)),
                    "trees": ExtraTreesClassifier(50, min_samples_leaf=3, random_state=seed),
                    "15-NN": make_pipeline(StandardScaler(), KNeighborsClassifier(15)),
                }
                for kind, model in models.items():
                    p = cross_val_predict(model, X, given, cv=5, method="predict_proba")
                    yield (
                        {"part": "tables", "set": name, "model": kind, "noise": setting, "seed": seed},
                        p,
                        given,
                        wrong,
                        ALL,
                    )


PARTS = {"published": published, "checked": checked, "tables": tables}


def cell(p: np.ndarray, y: np.ndarray, wrong: np.ndarray, known: Known = ALL) -> dict:
    """AUROC and AP among the known rows, and the rate of all, of ours and of cleanlab."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    from sktda.attribution import PrecomputedProbabilities
    from sktda.cleaning.predictability import disagreeing
    from sktda.noise import label_noise_rate

    fitted = PrecomputedProbabilities(p).fit(y, y)
    decision = fitted.loo_decision_
    rates = {"sktda": label_noise_rate(decision, y), "confident_joint": disagreeing(decision, y).rate}
    scores = {"sktda": fitted.scores_}
    if has("cleanlab"):
        from cleanlab.count import estimate_joint
        from cleanlab.rank import get_label_quality_scores

        p = np.clip(p, 1e-9, None)
        p /= p.sum(axis=1, keepdims=True)
        for name, (method, adjusted) in SCORES.items():
            scores[name] = get_label_quality_scores(y, p, method=method, adjust_pred_probs=adjusted)
        rates["cleanlab"] = float(1 - np.trace(estimate_joint(y, p)))
    return {
        "n": len(y),
        "true_rate": float(wrong.mean()),
        "rate": rates,
        "auroc": {name: float(roc_auc_score(wrong[known], -values[known])) for name, values in scores.items()},
        "ap": {name: float(average_precision_score(wrong[known], -values[known])) for name, values in scores.items()},
    }


def best(row: dict, metric: str) -> float:
    """Of cleanlab's scores, chosen after the fact."""
    return max((value for name, value in row[metric].items() if name != "sktda"), default=float("nan"))


def over_seeds(rows: list[dict]) -> list[dict]:
    """Tables with the means over the seeds, to six digits; all with the mean error of the rate."""
    cells: dict[tuple, list[dict]] = {}
    for row in rows:
        cells.setdefault(tuple(row.get(name) for name in ("part", "set", "model", "noise")), []).append(row)
    means = []
    for group in cells.values():
        for each in group:
            each["error"] = {name: abs(rate - each["true_rate"]) for name, rate in each["rate"].items()}
        row = {name: value for name, value in group[0].items() if name != "seed"}
        for name in ("rate", "error", "auroc", "ap"):
            row[name] = {key: round(float(np.mean([each[name][key] for each in group])), 6) for key in row[name]}
        if row["part"] == "checked":  # nobody knows of most rows
            row = {name: value for name, value in row.items() if name not in {"true_rate", "error"}}
        means.append({**row, "n_seeds": len(group)})
    return means


def main(arguments: list[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    chosen = begin(parser, arguments, threads=1)
    rows = []
    for part in chosen.parts:
        for what, *data in PARTS[part]():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # classes of fewer rows than folds, lbfgs at its limit
                rows.append({**what, **cell(*data)})
            figures = ", ".join(
                f"{metric} {rows[-1][metric]['sktda']:.4f} (best of cleanlab {best(rows[-1], metric):.4f})"
                for metric in ("auroc", "ap")
            )
            print(f"{' '.join(map(str, what.values()))}: {figures}", flush=True)
    save("given_probabilities", over_seeds(rows))


if __name__ == "__main__":
    main()
