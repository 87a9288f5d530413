"""Typed columns as numbers: levels of categories, parts of dates, topics of texts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.base import clone

from sktda.tables.dates import parts

MAX_CATEGORIES = 50
RARE = 200  # a category of its own from n / RARE rows on, and two
TOPICS = 100
TEXTS = 20_000  # that the words are learned from
MAX_WORDS = 50_000
WORD = r"(?u)\w+|[^\w\s]"  # signs such as ! and £ say something, too


class Numbers:
    """A column of floats: itself with the median where missing, and a column that says where that was."""

    how = "as it is"

    def fit(self, column: pd.Series) -> Numbers:
        values = column.to_numpy()
        missing = np.isnan(values)
        self.median = float(np.median(values[~missing])) if not missing.all() else 0.0
        self.indicator = bool(missing.any())
        self.names = [str(column.name)] + [f"{column.name}_missing"] * self.indicator
        if self.indicator:
            self.how = "median where missing, and where that was"
        return self

    def transform(self, column: pd.Series) -> np.ndarray:
        values = column.to_numpy()
        missing = np.isnan(values)
        filled = np.where(missing, self.median, values)
        return np.column_stack([filled, missing]) if self.indicator else filled[:, None]


class Dates:
    """A column of dates: what varies of days, year, month, weekday and hour."""

    def fit(self, column: pd.Series) -> Dates:
        found = {
            name: values
            for name, values in parts(column.to_numpy()).items()
            if len(np.unique(values[~np.isnan(values)])) > 1
        }
        if column.dt.normalize().nunique() == 1:
            found.pop("days", None)  # the hour says it all
        self.blocks = {
            name: Numbers().fit(pd.Series(values, name=f"{column.name}_{name}")) for name, values in found.items()
        }
        for name in list(self.blocks)[1:]:
            self.blocks[name].indicator = False  # once is enough
        self.names = [
            n for block in self.blocks.values() for n in (block.names if block.indicator else block.names[:1])
        ]
        self.how = ", ".join(self.blocks) or "nothing varies"
        return self

    def transform(self, column: pd.Series) -> np.ndarray:
        found = parts(column.to_numpy())
        columns = [block.transform(pd.Series(found[name])) for name, block in self.blocks.items()]
        return np.hstack([np.empty((len(column), 0)), *columns])


class Levels:
    """A column of categories: one column for each that is frequent, one for missing cells, one for all others."""

    def fit(self, column: pd.Series) -> Levels:
        counts = np.bincount(column.cat.codes[column.cat.codes >= 0], minlength=len(column.cat.categories))
        texts = column.cat.categories.to_numpy()
        order = np.lexsort((texts, -counts))  # the order of rows decides nothing
        least = max(2, len(column) // RARE)
        frequent = order[counts[order] >= least]
        n_missing = int((column.cat.codes < 0).sum())
        room = MAX_CATEGORIES - (n_missing > 0)
        if len(frequent) > room or (counts[order] > 0).sum() > len(frequent):
            frequent = frequent[: room - 1]
        if (counts > 0).sum() == len(frequent) + 1:  # the only other one
            frequent = order[: len(frequent) + 1]
        self.levels = {text: j for j, text in enumerate(sorted(texts[frequent]))}
        n_others = int((counts > 0).sum()) - len(frequent)
        self.names = [f"{column.name}_{text}" for text in self.levels]
        self.missing = len(self.names) if n_missing else None
        self.names += [f"{column.name}_missing"] * (n_missing > 0)
        self.others = len(self.names) if n_others else None
        self.names += [f"{column.name}_other"] * (n_others > 0)
        self.how = f"{len(self.levels)} categories" + (f", {n_others} others together" if n_others else "")
        return self

    def transform(self, column: pd.Series) -> np.ndarray:
        nowhere = len(self.names)  # a category that was never seen is none of them
        others = nowhere if self.others is None else self.others
        missing = nowhere if self.missing is None else self.missing
        places = np.array([self.levels.get(text, others) for text in column.cat.categories] + [missing], dtype=int)
        encoded = np.zeros((len(column), nowhere + 1), dtype=bool)
        encoded[np.arange(len(column)), places[column.cat.codes]] = True
        return encoded[:, :nowhere]


class Topics:
    """A column of texts: latent semantic analysis of the words and letters that they share."""

    def fit(self, column: pd.Series) -> Topics:
        from sklearn.decomposition import TruncatedSVD  # most tables have no text, and these take a while
        from sklearn.feature_extraction.text import TfidfVectorizer

        texts = _texts(column)
        if len(texts) > TEXTS:
            texts = texts[np.sort(np.random.default_rng(0).choice(len(texts), TEXTS, replace=False))]
        options: dict[str, Any] = {
            "sublinear_tf": True,
            "max_features": MAX_WORDS,
            "min_df": 2 if len(texts) > 50 else 1,
        }
        self.vectorizers = []
        for special in (
            {"ngram_range": (1, 2), "token_pattern": WORD},
            {"analyzer": "char_wb", "ngram_range": (1, 4)},
        ):
            vectorizer = TfidfVectorizer(**options, **special)
            try:
                vectorizer.fit(texts)
            except ValueError:  # no word occurs twice
                continue
            self.vectorizers.append(vectorizer)
        n_words = sum(len(vectorizer.vocabulary_) for vectorizer in self.vectorizers)
        n_topics = max(0, min(TOPICS, n_words - 1, len(texts) - 1))
        self.svd = TruncatedSVD(n_topics, random_state=0).fit(self._counts(texts)) if n_topics else None
        self.names = [f"{column.name}_topic{j}" for j in range(n_topics)]
        self.how = f"{n_topics} topics of words and letters (TF-IDF, LSA)"
        return self

    def transform(self, column: pd.Series) -> np.ndarray:
        if self.svd is None:
            return np.empty((len(column), 0))
        texts = _texts(column)
        blocks = [self.svd.transform(self._counts(texts[i : i + TEXTS])) for i in range(0, len(texts), TEXTS)]
        return np.vstack(blocks)

    def _counts(self, texts: np.ndarray) -> sparse.csr_matrix:
        return sparse.hstack([vectorizer.transform(texts) for vectorizer in self.vectorizers]).tocsr()


class Encoded:
    """A column of texts: the features that a transformer of texts makes of them."""

    def __init__(self, transformer: Any) -> None:
        self.transformer = transformer

    def fit(self, column: pd.Series) -> Encoded:
        self.transformer = clone(self.transformer).fit(_texts(column))
        self.names = [f"{column.name}_{name}" for name in self.transformer.get_feature_names_out()]
        model = getattr(self.transformer, "model", None)
        self.how = f"{len(self.names)} features by {model if isinstance(model, str) else self.transformer}"
        return self

    def transform(self, column: pd.Series) -> np.ndarray:
        return np.asarray(self.transformer.transform(_texts(column)))


def _texts(column: pd.Series) -> np.ndarray:
    """(n,) str, "" where a cell is missing."""
    return np.append(column.cat.categories.to_numpy(dtype=object), "")[column.cat.codes]
