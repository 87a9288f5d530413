"""Texts: what influence costs token by token, and which parameters it needs: tokens.py, finetuning_parameters.py."""

from __future__ import annotations

from functools import partial

from pages.common import Rows, distinct, found, mean, over_seeds, table
from pages.page import Page, Picture
from pages.plots import bars, dots


def tokens() -> Page | None:
    """Nothing where it was not run."""
    environment, rows = found("tokens")
    if not rows:
        return None
    environment_models, models = found("tokens_models")
    influence = {size(row): row["ratio"] for row in rows}
    body = [
        [size(row), f"{row['plain_seconds']:.2f}", f"{row['influence_seconds']:.2f}", f"{row['ratio']:.1f}"]
        + [f"{row['peak_gib']:.2f}"]
        for row in rows
    ]
    tables = {
        "Influence by EK-FAC of a small GPT": table(
            ["", "plain pass, s", "Influence, s", "plain passes", "peak GiB"], body
        )
    }
    panels = {"Influence": {"plain passes": influence}}
    measured = [(environment, rows)]
    if models:
        body = [
            [row["model"], f"{row['plain_seconds']:.2f}", f"{row['gradients_seconds']:.2f}", f"{row['ratio']:.1f}"]
            + [f"{row['formed']:,}", f"{row['peak_gib']:.2f}"]
            for row in models
        ]
        tables["Exact gradients of models of transformers"] = table(
            ["", "plain pass, s", "gradients, s", "plain passes", "parameters formed row by row", "peak GiB"], body
        )
        panels["exact gradients"] = {"plain passes": {row["model"]: row["ratio"] for row in models}}
        measured.append((environment_models, models))
    return Page(
        name="tokens",
        question="What does influence cost where a row is a text, and the loss one of every token?",
        answer=f"Influence by EK-FAC takes {min(influence.values()):.1f} to {max(influence.values()):.1f} times a "
        "forward and backward pass over the rows"
        + (f", exact gradients at most {max(row['ratio'] for row in models):.1f} times." if models else "."),
        picture=Picture("Times a plain pass over the rows", partial(bars, panels, "times a plain pass")),
        about=f"{rows[0]['rows']} rows through a GPT of four layers of width {rows[0]['width']} that has seen them "
        "once: Influence at its defaults (EK-FAC, self-influence) against one forward and backward pass, in processor "
        "time of one thread, and with a criterion of the user's own that shifts the tokens itself. Then language "
        "models of transformers as they are, of two layers: the gradients of all rows in their factors against the "
        "same plain pass, with the numbers of parameters that are in no known layer and formed row by row.",
        command="python benchmarks/tokens.py",
        measured=measured,
        tables=tables,
    )


def size(row: dict) -> str:
    """64 tokens of 1,000 kinds."""
    return f"{row['tokens']} tokens of {row['kinds']:,} kinds{', own criterion' if row['own'] else ''}"


def parameters() -> Page | None:
    """Nothing where it was not run."""
    environment, rows = found("finetuning_parameters")
    if not rows:
        return None
    cells = {kind: by_method(rows, kind) for (kind,) in distinct(rows, "kind")}
    body = [
        [kind, method, over_seeds(own, "auroc"), f"{mean(own, 'seconds'):.1f}"]
        for kind, methods in cells.items()
        for method, own in methods.items()
    ]
    ahead = [
        mean(methods[f"{name}, head"], "auroc") > mean(methods[f"{name}, all"], "auroc")
        for methods in cells.values()
        for name in dict.fromkeys(method.split(",")[0] for method in methods)
    ]
    panels = {
        "": {
            part: {
                f"{method.split(',')[0]}, {kind}": mean(own, "auroc")
                for kind, methods in cells.items()
                for method, own in methods.items()
                if method.endswith(part)
            }
            for part in ("all", "head")
        }
    }
    return Page(
        name="which-parameters",
        question="Which parameters of a fine-tuned net should take part in a score?",
        answer=f"Those of the head alone find wrong labels with a higher mean AUROC than all in {sum(ahead)} of "
        f"{len(ahead)} cases of method and net.",
        picture=Picture(
            "AUROC of the wrong labels with all parameters and with those of the head, by method and net",
            partial(dots, panels, "AUROC, mean over seeds", joined=True),
        ),
        about="1,000 sentences of SST-2 with 20 % of the labels flipped, a BERT and a GPT-2 of two layers with their "
        "heads for classification, trained as a whole after training on 3,000 other sentences with right labels. "
        "InnerProduct, TracIn and Influence at their defaults, with all parameters and with those behind the base. The "
        "objective is the loss on half of the validation part. Few seeds: look at the spread.",
        command="python benchmarks/finetuning_parameters.py",
        measured=[(environment, rows)],
        tables={"AUROC and seconds": table(["net", "parameters", "AUROC", "seconds"], body)},
    )


def by_method(rows: Rows, kind: str) -> dict[str, Rows]:
    """Scores of each method, one for each seed."""
    own = [row for row in rows if row["kind"] == kind]
    return {method: [row["scores"][method] for row in own] for method in own[0]["scores"]}
