"""The batches that pairs stood in, of a recorded run: for losses in which the pairs of a batch meet."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sktda.data import slices
from sktda.model.base import Rows
from sktda.model.given import GivenModel, GivenRows
from sktda.model.trajectory import Trajectory


@dataclass(frozen=True)
class Standing:
    """The batches of one checkpoint: their pairs as rows, whose blocks are the batches.

    places (len(rows),): position of each row among the pairs. counted (len(rows),): whether it is the batch
    that the pair is scored in; it may stand in others, too, as company. copies (n,): position of the pair that stands
    for each of all pairs in the batches, which is another one where a pair is given more often than it was trained on.
    """

    rows: Rows
    places: np.ndarray
    counted: np.ndarray
    copies: np.ndarray

    def by_pair(self, values: Tensor) -> Tensor:
        """(n, ...) values of the pairs, from those of the rows; 0 for pairs that stood in no batch."""
        found = torch.zeros(len(self.copies), *values.shape[1:], dtype=torch.float64)
        found[torch.from_numpy(self.places[self.counted])] = values.cpu().double()[torch.from_numpy(self.counted)]
        return found[torch.from_numpy(self.copies)]


class Batches:
    """Which pairs stood together, by the record of the training.

    Raises ValueError for a record without steps, weights of pairs, pairs of the training that are missing, and batches
    that hold a pair twice.
    """

    def __init__(self, given: GivenModel, data: GivenRows, rows: Rows) -> None:
        trajectory = given.record
        if trajectory is None or trajectory.step_index is None:
            raise ValueError(
                "which pairs stood in a batch together is not recorded, and they are each other's negatives; train "
                "with TrajectoryRecorder(steps=True), or give each pair the same negatives, with FixedNegatives"
            )
        if data.sample_weight is not None:
            raise ValueError("sample_weight has no meaning where the pairs of a batch meet in the loss; leave it out")
        found = trajectory.positions(*given.seen(data))
        n = len(trajectory.rows)  # type: ignore[arg-type]
        # by the number of a pair in the record, where it is among those that are given
        self.place = np.full(n, -1)
        self.place[found] = np.arange(len(found))  # of copies of a pair the last one
        if lost := int((self.place < 0).sum()):
            raise ValueError(
                f"{lost} of the {n} pairs that the net was trained on are missing, and they are negatives of the "
                "others; pass all pairs of the training"
            )
        self.copies = self.place[found]
        self.trajectory: Trajectory = trajectory
        self.rows = rows
        assert trajectory.step_offsets is not None
        self.size = int(np.diff(trajectory.step_offsets).max())
        """Pairs in a batch of the training."""

    def split(self, rows: Rows) -> Rows:
        """Validation rows in batches of the size of the training, in their order."""
        found = Rows(len(rows), rows.read)
        found.blocks = list(slices(len(rows), self.size))
        return found

    def at(self, checkpoint: int | None) -> Standing:
        """The latest batch of every pair before a checkpoint (None = the last), or else its first one after it."""
        trajectory, place = self.trajectory, self.place
        done = int(trajectory.steps[-1 if checkpoint is None else checkpoint])
        offsets, index = trajectory.step_offsets, trajectory.step_index
        assert offsets is not None
        assert index is not None
        # the step of every entry of `step_index`
        step_of = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        latest = np.full(len(place), -1)
        latest[index[::-1]] = step_of[::-1]  # of equal positions the last one stays: the first batch of each pair
        # over these, of the steps before the checkpoint, the last one: an assignment keeps the last of equal positions
        latest[index[: offsets[done]]] = step_of[: offsets[done]]
        steps = np.unique(latest[latest >= 0])
        batches = [index[offsets[k] : offsets[k + 1]] for k in steps]
        for k, batch in zip(steps, batches, strict=True):
            if len(np.unique(batch)) < len(batch):
                raise ValueError(
                    f"the batch of step {k} holds a pair twice, as its own negative; train without replacement"
                )
        together = np.concatenate(batches)
        counted = latest[together] == np.repeat(steps, [len(batch) for batch in batches])
        places = place[together]
        # the engine divides by the number of rows
        weight = torch.from_numpy(counted * (len(places) / len(place))).float()
        rows = Rows(len(places), lambda part: self.rows.read(places[part]), weight)
        ends = np.cumsum([len(batch) for batch in batches])
        rows.blocks = [slice(int(end - len(batch)), int(end)) for end, batch in zip(ends, batches, strict=True)]
        return Standing(rows, places, counted, self.copies)
