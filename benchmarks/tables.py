"""docs/benchmarks/, one page for each question, from the JSON files in benchmarks/results; run as a script."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pages.adversarial import adversarial, objectives_cost
from pages.alike import alike
from pages.annotators import annotators
from pages.battery import battery
from pages.battery_models import cleaned_tables, field
from pages.cluster import cluster
from pages.coresets import coreset, deletion
from pages.damping import damping
from pages.decisions import decisions
from pages.distributional import over_runs
from pages.encoders import encoders
from pages.engine import engine, engine_peers
from pages.fairness import fairness
from pages.finetuning import finetuning
from pages.front_door import front_door
from pages.given_probabilities import given_probabilities
from pages.gpu import gpu
from pages.hessian_free import hessian_free
from pages.image_text import image_text
from pages.lds import lds
from pages.lds_transformers import repeats, subset_removal, transformers
from pages.learned import backbones, texts
from pages.mnist import mnist
from pages.noisy_labels import cleaning, cost, detection
from pages.opendataval import opendataval
from pages.page import Page
from pages.photographs import photographs
from pages.review import review
from pages.scale import scale, scale_pairs, scale_rows
from pages.small_cnn import small_cnn
from pages.store import compression, store
from pages.strategies import adult, strategies
from pages.structure import structure
from pages.tokens import parameters, tokens
from pages.trained_again import many_nets, vision_transformer
from pages.trajectory import trajectory_cost, trajectory_digits, trajectory_fashion
from pages.trees import trees, trees_noise
from pages.unrolling import unrolling
from pages.which import which

FOLDER = Path(__file__).parents[1] / "docs" / "benchmarks"
Makers = tuple[Callable[[], Page | list[Page | None] | None], ...]
QUESTIONS: dict[str, Makers] = {
    "Which labels are wrong?": (
        battery,
        which,
        given_probabilities,
        opendataval,
        detection,
        encoders,
        photographs,
        texts,
        backbones,
        field,
        alike,
        annotators,
        review,
    ),
    "Does cleaning help the model?": (
        cleaned_tables,
        cleaning,
        small_cnn,
        decisions,
        adult,
        finetuning,
        parameters,
        image_text,
    ),
    "Which rows made the model what it is?": (
        lds,
        mnist,
        transformers,
        repeats,
        damping,
        subset_removal,
        trees,
        trees_noise,
        hessian_free,
        trajectory_digits,
        trajectory_fashion,
        unrolling,
        over_runs,
        vision_transformer,
        deletion,
    ),
    "Smaller, fairer, harder to fool?": (coreset, strategies, fairness, adversarial),
    "What does it cost?": (
        front_door,
        cost,
        scale,
        scale_rows,
        scale_pairs,
        store,
        compression,
        cluster,
        gpu,
        engine,
        engine_peers,
        trajectory_cost,
        tokens,
        objectives_cost,
        many_nets,
    ),
    "And the code?": (structure,),
}


def pages() -> dict[str, list[Page]]:
    """Those whose results are there, by heading."""
    made: dict[str, list[Page]] = {}
    for heading, makers in QUESTIONS.items():
        for make in makers:
            page = make()
            made.setdefault(heading, []).extend(filter(None, page if isinstance(page, list) else [page]))
    return {heading: own for heading, own in made.items() if own}


def index(groups: dict[str, list[Page]]) -> str:
    """One line for each question, with its answer."""
    parts = [
        "# Benchmarks",
        "Made by `python benchmarks/tables.py` from `benchmarks/results`.",
    ]
    for heading, own in groups.items():
        lines = [f"- [{page.question}]({page.name}.md) {page.answer}" for page in own]
        parts += [f"## {heading}", "\n".join(lines)]
    names = "\n".join(page.name for own in groups.values() for page in own)
    parts.append(f"```{{toctree}}\n:hidden:\n\n{names}\n```\n")
    return "\n\n".join(parts)


def texts_of(groups: dict[str, list[Page]]) -> dict[str, str]:
    """All files below docs/benchmarks but the pictures."""
    files = {"index.md": index(groups)}
    for own in groups.values():
        for page in own:
            files |= page.files()
    return files


def main() -> None:
    from pages.plots import save

    groups = pages()
    files = texts_of(groups)
    pictures = {f"pictures/{page.name}.svg": page.picture for own in groups.values() for page in own}
    for old in FOLDER.rglob("*.*"):
        if old.relative_to(FOLDER).as_posix() not in files | pictures:
            old.unlink()
    for name, text in files.items():
        file = FOLDER / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    for name, picture in pictures.items():
        file = FOLDER / name
        file.parent.mkdir(parents=True, exist_ok=True)
        save(picture.draw(), file)


if __name__ == "__main__":
    main()
