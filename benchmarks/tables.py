"""docs/benchmarks.md from the JSON files in benchmarks/results: python benchmarks/tables.py"""

from __future__ import annotations

from pathlib import Path

from pages.adversarial import adversarial, objectives_cost
from pages.alike import alike
from pages.battery import battery
from pages.cluster import cluster
from pages.damping import damping
from pages.decisions import decisions
from pages.distributional import distributional
from pages.encoders import encoders
from pages.engine import engine, scale, scale_pairs
from pages.fairness import fairness
from pages.finetuning import finetuning
from pages.front_door import front_door
from pages.given_probabilities import given_probabilities
from pages.gpu import gpu
from pages.hessian_free import hessian_free
from pages.image_text import image_text
from pages.lds import lds
from pages.lds_transformers import repeats, subset_removal, transformers
from pages.learned import learned
from pages.noisy_labels import cleaning, cost, detection
from pages.photographs import photographs
from pages.review import review
from pages.scale_rows import scale_rows
from pages.store import store
from pages.structure import structure
from pages.trajectory import coreset, deletion, trajectory
from pages.trees import trees
from pages.unrolling import unrolling
from pages.which import adult, strategies, which

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"


def main() -> None:
    text = "\n\n".join(
        [
            "# Benchmarks",
            "Made by `python benchmarks/tables.py` from the JSON files beside the scripts.",
            *filter(
                None,
                (
                    battery(),
                    encoders(),
                    photographs(),
                    learned(),
                    given_probabilities(),
                    alike(),
                    front_door(),
                    decisions(),
                    review(),
                    cluster(),
                ),
            ),
            detection(),
            cleaning(),
            cost(),
            *filter(
                None,
                (
                    which(),
                    adult(),
                    trees(),
                    engine(),
                    gpu(),
                    lds(),
                    damping(),
                    repeats(),
                    transformers(),
                    subset_removal(),
                    trajectory(),
                    unrolling(),
                    distributional(),
                    deletion(),
                    coreset(),
                    strategies(),
                    hessian_free(),
                    fairness(),
                    adversarial(),
                    objectives_cost(),
                    finetuning(),
                    image_text(),
                    scale(),
                    scale_rows(),
                    store(),
                    scale_pairs(),
                    structure(),
                ),
            ),
        ]
    )
    PAGE.write_text(text + "\n")


if __name__ == "__main__":
    main()
