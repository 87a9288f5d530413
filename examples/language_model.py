"""Which training text made a language model say this? A small GPT-2 from a configuration learns facts by heart.

24 people live in a town, do some work and like a dish; every fact is told once. The model is asked where each of them
lives, with all words of the answer but the town left out of the loss (label -100), and `Influence` ranks the texts that
it was trained on by what each did for this one word. The text that tells it is known, so the ranking can be checked.
Texts that the model cannot learn move it much, whatever is asked: the influence is divided by the root of that on the
text's own loss. Training stops when the model knows the homes. Later, when it knows them by heart, there is little to
compare: after 45 epochs 11 of the 23 texts come first, of 18 after 25. The size of the model, its training and the
division were chosen on these 23 questions: it shows how to ask, and measures no method.

One lie is among the texts: somebody's home is told twice more, and wrong. The model believes it. The last table shows
what texts did for each word of what it says: the lies stand at the top, and the truth, which spoke against, at the end.

The model goes into skorch as it is: its output has `logits`, and `LogitsLoss(shift=True)` compares those at a word with
the next one. For a real model see docs/finetuning.md.

Run with `python examples/language_model.py`. About 4 seconds on one thread.
"""

import numpy as np
import torch
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNet
from transformers import GPT2Config, GPT2LMHeadModel

from sktda import LogitsLoss
from sktda.attribution import Influence

SEED = 0
N_PEOPLE = 24
TOWNS = ["paris", "rome", "oslo", "lima", "cairo", "delhi", "quito", "bern"]
JOBS = ["baker", "nurse", "pilot", "judge", "miner", "tailor", "sailor", "cook"]
DISHES = ["rice", "soup", "fish", "bread", "beans", "cake", "figs", "nuts"]
FACTS = {"{} lives in {}": TOWNS, "{} works as a {}": JOBS, "{} likes {}": DISHES}
LONGEST = 5


def make_texts() -> tuple[list[str], np.ndarray]:
    """(texts, towns of the people): three facts of each, and a lie about the first, told twice."""
    rng = np.random.default_rng(SEED)
    truth = {way: rng.choice(of, N_PEOPLE) for way, of in FACTS.items()}
    texts = [way.format(person(i), values[i]) for way, values in truth.items() for i in range(N_PEOPLE)]
    towns = truth["{} lives in {}"]
    lie = next(town for town in TOWNS if town != towns[0])
    return [*texts, *2 * [f"{person(0)} lives in {lie}"]], towns


def person(i: int) -> str:
    """A name that is one word."""
    return f"person{i:02d}"


def encoded(texts: list[str], vocabulary: dict[str, int]) -> dict[str, np.ndarray]:
    """Numbers of the words, and a mask that is 0 at the padding."""
    numbers = [[vocabulary[word] for word in text.split()] for text in texts]
    ids = np.array([each + [0] * (LONGEST - len(each)) for each in numbers])
    return {"input_ids": ids, "attention_mask": (ids > 0).astype(int)}


def labels_of(X: dict[str, np.ndarray]) -> np.ndarray:
    """The words themselves, -100 at the padding: the loss shifts them."""
    return np.where(X["attention_mask"] > 0, X["input_ids"], -100)


def train(X: dict[str, np.ndarray], n_words: int) -> NeuralNet:
    """A GPT-2 of two layers that has seen the texts 25 times."""
    torch.manual_seed(SEED)
    sizes = {"n_embd": 48, "initializer_range": 0.1, "n_layer": 2, "n_head": 2, "n_positions": LONGEST}
    dropout = {"embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0}  # it is to learn by heart
    config = GPT2Config(vocab_size=n_words, **sizes, **dropout, bos_token_id=None, eos_token_id=None)
    return NeuralNet(
        GPT2LMHeadModel(config),
        criterion=LogitsLoss,
        criterion__shift=True,
        optimizer=torch.optim.AdamW,
        lr=3e-3,
        max_epochs=25,
        batch_size=16,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
    ).fit(X, labels_of(X))


def said(net: NeuralNet, X: dict[str, np.ndarray]) -> np.ndarray:
    """The word that the model gives for the last of each text."""
    with torch.no_grad():
        logits = net.module_.eval()(**{name: torch.from_numpy(values) for name, values in X.items()}).logits
    last = X["attention_mask"].sum(1) - 1
    return logits[np.arange(len(last)), last - 1].argmax(1).numpy()


def main() -> None:
    """Train, ask, and look up who said so."""
    texts, towns = make_texts()
    vocabulary = {word: i for i, word in enumerate(["", *sorted({word for text in texts for word in text.split()})])}
    words = list(vocabulary)
    X = encoded(texts, vocabulary)
    net = train(X, len(vocabulary))
    influence = Influence(FrozenEstimator(net), random_state=SEED).fit(X, labels_of(X))

    others = np.arange(1, N_PEOPLE)
    asked = [f"{person(i)} lives in {towns[i]}" for i in others]
    queries = encoded(asked, vocabulary)
    right = said(net, queries) == [vocabulary[towns[i]] for i in others]
    answers = np.full((len(others), LONGEST), -100)
    answers[:, 3] = queries["input_ids"][:, 3]
    values = influence.attribute(queries, answers) / np.sqrt(-influence.scores_)
    before = (values > values[np.arange(len(others)), others][:, None]).sum(1)[right]
    print(f"{len(texts)} texts; homes that the model knows: {right.sum()} of {len(others)}")
    print(f"the text that tells it comes first: {(before == 0).sum()}, among the first three: {(before < 3).sum()}")

    question = f"{person(0)} lives in"
    answer = words[said(net, encoded([f"{question} {towns[0]}"], vocabulary))[0]]
    print(f"\nThe model says: {question} {answer} (the truth is {towns[0]})")
    query = encoded([f"{question} {answer}"], vocabulary)
    asked_words = f"{question} {answer}".split()[1:]  # nothing stands before the first
    by_word = np.full((len(asked_words), LONGEST), -100)
    for i, word in enumerate(asked_words):
        by_word[i, i + 1] = vocabulary[word]
    repeated = {name: np.repeat(each, len(asked_words), axis=0) for name, each in query.items()}
    values = influence.attribute(repeated, by_word)
    print(f"  {'':28s}" + "".join(f"{word:>9s}" for word in asked_words))
    order = np.argsort(-values[-1], kind="stable")
    for row in [*order[:4], *order[-2:]]:
        print(f"  {texts[row]:28s}" + "".join(f"{value:9.3f}" for value in values[:, row]))


if __name__ == "__main__":
    main()
