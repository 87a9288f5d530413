"""The flow chart of which.md, with links: python docs/flow.py writes docs/_static/which.svg.

One column, so that it can be read on a phone; lines and letters take the colour of the page, light or dark.
"""

from html import escape
from pathlib import Path

WIDTH, LEFT, BOX, ROW, GAP = 380, 16, 190, 42, 26
CHART = [  # (question, [(what holds, what to take, where it is described)])
    (
        "Which labels are wrong?",
        [
            ("as a rule", "NoisyLabelDetector()", "#wrong-labels-no-model-wanted"),
            ("labels are numbers", "NoisyLabelDetector()", "#wrong-numbers"),
            ("you have a good classifier", "SelfConfidence(model)", "#wrong-labels-no-model-wanted"),
            ("you have probabilities", "PrecomputedProbabilities", "scores.html#probabilities-you-already-have"),
            ("a net is trained anyway", "AUM, training_dynamics", "#a-net-is-being-trained-anyway"),
        ],
    ),
    (
        "Why did the model say that?",
        [
            ("boosted trees, a forest", "BoostIn, TreeKernel", "trees.html"),
            ("linear, or converged", "Influence", "#why-did-the-model-say-that"),
            ("a net with a recorded run", "Source", "#why-did-the-model-say-that"),
            ("queries come every day", "LoGra", "store.html"),
            ("is it this seed, or any?", "Distributional", "distributional.html"),
        ],
    ),
    (
        "Which rows harm these checked rows?",
        [
            ("no model wanted", "KNNShapley", "#which-rows-harm-these-validation-rows"),
            ("by what a model learns", "Influence", "#which-rows-harm-these-validation-rows"),
            ("fairer, or harder to fool", "Influence(objective=…)", "#fairer-or-harder-to-fool"),
        ],
    ),
    (
        "What to do with the rows?",
        [
            ("drop the wrong ones", "ResampledEstimator", "refit.html"),
            ("find out how many", "InfluencePrunerCV", "refit.html"),
            ("let some count less", "InfluenceReweighter", "refit.html#weights-in-place-of-removal"),
            ("few, as good as all", "CoresetSelector", "#fewer-rows-as-good-a-model"),
        ],
    ),
]
STYLE = (
    ".flow text{fill:currentColor;stroke:none}.flow .q{font-size:15px;font-weight:600}.flow .c{font-size:13px}"
    ".flow .m{font-size:12px;font-family:monospace;fill:var(--pst-color-link,currentColor)}"
    ".flow a:hover rect,.flow a:focus rect{stroke-width:2.5}"
)


def flow() -> str:
    """The chart as SVG that stands in the page itself, so that its links work."""
    parts, y = [], 0
    for number, (question, answers) in enumerate(CHART):
        if number:
            parts.append(f'<path d="M{LEFT} {y - GAP} V{y}" stroke-dasharray="3 3" marker-end="url(#flow-end)"/>')
        parts.append(f'<rect x="1" y="{y}" width="{WIDTH - 2}" height="34" rx="17"/>')
        parts.append(f'<text x="{LEFT + 2}" y="{y + 22}" class="q">{escape(question)}</text>')
        y += 34
        for holds, take, link in answers:
            middle = y + ROW / 2 + 4
            parts += [
                f'<path d="M{LEFT} {y - (ROW / 2 - 4 if answers[0][0] != holds else 0)} V{middle} '
                f'H{WIDTH - BOX - 4}" marker-end="url(#flow-end)"/>',
                f'<text x="{LEFT + 8}" y="{middle - 6}" class="c">{escape(holds)}</text>',
                f'<a href="{link}"><rect x="{WIDTH - BOX - 1}" y="{middle - 15}" width="{BOX}" height="30" rx="5"/>',
                f'<text x="{WIDTH - BOX / 2 - 1}" y="{middle + 4}" class="m" text-anchor="middle">',
                f"{escape(take)}</text></a>",
            ]
            y += ROW
        y += GAP + 8
    head = (
        f'<svg viewBox="0 0 {WIDTH} {y - GAP}" role="img" class="flow" font-family="sans-serif" fill="none" '
        'stroke="currentColor" style="width:100%;max-width:34rem;height:auto" '
        'aria-label="Which method when: four questions, and what to take for each case">'
    )
    arrow = (
        '<defs><marker id="flow-end" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="currentColor" stroke="none"/></marker></defs>'
    )
    return "\n".join([head, f"<style>{STYLE}</style>", arrow, *parts, "</svg>\n"])


if __name__ == "__main__":
    (Path(__file__).parent / "_static" / "which.svg").write_text(flow(), encoding="utf-8")
