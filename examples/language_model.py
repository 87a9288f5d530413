"""
A language model: which text made it say this?
==============================================

A small GPT-2 learns by heart where 24 people live, what they do and what they like; every fact is told once. Which of
its texts made it say a word? The text that tells it is known here, so the ranking can be checked. And one lie is among
the texts, told twice. The settings were chosen on these questions: it shows how to ask, and measures no method. Needs
transformers.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNet
from transformers import GPT2Config, GPT2LMHeadModel

from sktda import LogitsLoss
from sktda.attribution import Influence
from sktda.displays import InfluenceDisplay

# %%
# What is told
# ------------
#
# Three facts of each person, and a lie about the first one's home, told twice.

N_PEOPLE, LONGEST = 24, 5
TOWNS = ["paris", "rome", "oslo", "lima", "cairo", "delhi", "quito", "bern"]
JOBS = ["baker", "nurse", "pilot", "judge", "miner", "tailor", "sailor", "cook"]
DISHES = ["rice", "soup", "fish", "bread", "beans", "cake", "figs", "nuts"]
FACTS = {"{} lives in {}": TOWNS, "{} works as a {}": JOBS, "{} likes {}": DISHES}

rng = np.random.default_rng(0)
people = [f"person{i:02d}" for i in range(N_PEOPLE)]
truth = {way: rng.choice(of, N_PEOPLE) for way, of in FACTS.items()}
texts = [
    way.format(person, value) for way, values in truth.items() for person, value in zip(people, values, strict=True)
]
towns = truth["{} lives in {}"]
lie = next(town for town in TOWNS if town != towns[0])
texts += 2 * [f"{people[0]} lives in {lie}"]
vocabulary = {word: i for i, word in enumerate(["", *sorted({word for text in texts for word in text.split()})])}
words = list(vocabulary)


def encoded(texts: list[str]) -> dict[str, np.ndarray]:
    """Numbers of the words, and a mask that is 0 at the padding."""
    numbers = [[vocabulary[word] for word in text.split()] for text in texts]
    ids = np.array([each + [0] * (LONGEST - len(each)) for each in numbers])
    return {"input_ids": ids, "attention_mask": (ids > 0).astype(int)}


X = encoded(texts)
labels = np.where(X["attention_mask"] > 0, X["input_ids"], -100)  # the words themselves: the loss shifts them

# %%
# The model
# ---------
#
# It goes into skorch as it is: its output has ``logits``, and ``LogitsLoss(shift=True)`` compares those at a word with
# the next one. Training stops when the model knows the homes. Later, when it knows them by heart, there is little to
# compare.

torch.manual_seed(0)
sizes = {"n_embd": 48, "initializer_range": 0.1, "n_layer": 2, "n_head": 2, "n_positions": LONGEST}
dropout = {"embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0}  # it is to learn by heart
config = GPT2Config(vocab_size=len(words), **sizes, **dropout, bos_token_id=None, eos_token_id=None)
net = NeuralNet(
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
).fit(X, labels)


def said(X: dict[str, np.ndarray]) -> np.ndarray:
    """The word that the model gives for the last of each text."""
    with torch.no_grad():
        logits = net.module_.eval()(**{name: torch.from_numpy(values) for name, values in X.items()}).logits
    last = X["attention_mask"].sum(1) - 1
    return logits[np.arange(len(last)), last - 1].argmax(1).numpy()


# %%
# Where does each of them live, and who said so?
# ----------------------------------------------
#
# All words of the answer but the town are left out of the loss (label -100). Texts that the model cannot learn move it
# much, whatever is asked: the influence is divided by the root of that on the text's own loss.

influence = Influence(FrozenEstimator(net), random_state=0).fit(X, labels)
others = np.arange(1, N_PEOPLE)
queries = encoded([f"{people[i]} lives in {towns[i]}" for i in others])
right = said(queries) == [vocabulary[towns[i]] for i in others]
answers = np.full((len(others), LONGEST), -100)
answers[:, 3] = queries["input_ids"][:, 3]
values = influence.attribute(queries, answers) / np.sqrt(-influence.scores_)
before = (values > values[np.arange(len(others)), others][:, None]).sum(1)[right]
print(f"{len(texts)} texts; homes that the model knows: {right.sum()} of {len(others)}")
print(f"the text that tells it comes first: {(before == 0).sum()}, among the first three: {(before < 3).sum()}")

# %%
# The lie
# -------
#
# The model believes it. What did texts do for each word of what it says?

question = f"{people[0]} lives in"
answer = words[said(encoded([f"{question} {towns[0]}"]))[0]]
print(f"The model says: {question} {answer} (the truth is {towns[0]})")
asked_words = f"{question} {answer}".split()[1:]  # nothing stands before the first
by_word = np.full((len(asked_words), LONGEST), -100)
for i, word in enumerate(asked_words):
    by_word[i, i + 1] = vocabulary[word]
repeated = {name: np.repeat(each, len(asked_words), axis=0) for name, each in encoded([f"{question} {answer}"]).items()}
values = influence.attribute(repeated, by_word)
print(f"  {'':28s}" + "".join(f"{word:>9s}" for word in asked_words))
order = np.argsort(-values[-1], kind="stable")
for row in [*order[:4], *order[-2:]]:
    print(f"  {texts[row]:28s}" + "".join(f"{value:9.3f}" for value in values[:, row]))

# %%
# The lies stand at the top, and the truth, which spoke against, at the end.

ends = np.concatenate([order[:4], order[-4:]])
name = "predicted rise of the loss of the last word without the text"
display = InfluenceDisplay(ends, values[-1, ends], [texts[row] for row in ends], value_name=name).plot()
display.figure_.suptitle(f"“{question} {answer}”: texts for and against")
plt.show()

# %%
# **The decision**: the two texts at the top go, and the model is trained again. For a real model see
# :doc:`../finetuning`.
