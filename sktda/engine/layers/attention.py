"""Self-attention of torch through its two linear maps, which its forward uses without calling a layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sktda.engine.layers.layer import Layer, Opened
from sktda.engine.layers.linear import Part


class SelfAttention(Opened):
    """The attention of a sequence to itself, step by step."""

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As the module's own; `is_causal` only says what the mask is."""
        module = self.module
        if query is not key or key is not value or query.ndim != 3 or (module.training and module.dropout):
            raise RuntimeError("an attention to other sequences, without an axis of rows, or with dropout")
        x = query if module.batch_first else query.transpose(0, 1)
        n, t, _ = x.shape
        packed = self.noted("in_proj", x, module.in_proj_weight, module.in_proj_bias)
        # (n, t, 3 * heads * d) into three of (n, heads, t, d): the maps of q, k and v stand one after the other
        q, k, v = packed.unflatten(2, (3, module.num_heads, -1)).permute(2, 0, 3, 1, 4)
        # over the root of a head's d, as torch's own
        scores = q @ k.mT * q.shape[-1] ** -0.5
        if attn_mask is not None:
            # torch takes (t, t) for all, or (n * heads, t, t)
            scores = masked(scores, attn_mask if attn_mask.ndim == 2 else attn_mask.reshape(n, -1, t, t))
        if key_padding_mask is not None:
            # (n, t) over the keys, which are the last axis of (n, heads, t, t)
            scores = masked(scores, key_padding_mask[:, None, None])
        weights = torch.softmax(scores, dim=-1)
        context = (weights @ v).transpose(1, 2).flatten(2)
        found = self.noted("out_proj", context, module.out_proj.weight, module.out_proj.bias)
        seen = (weights.mean(1) if average_attn_weights else weights) if need_weights else None
        return found if module.batch_first else found.transpose(0, 1), seen


def masked(scores: Tensor, mask: Tensor) -> Tensor:
    """Scores without those that a mask of truth values excludes, or plus one of numbers."""
    return scores.masked_fill(mask, -torch.inf) if mask.dtype == torch.bool else scores + mask


def layers(name: str, module: nn.Module) -> list[Layer]:
    """The maps of an attention whose queries, keys and values have one map; not of one with a forward of its own."""
    if type(module) is not nn.MultiheadAttention or "forward" in module.__dict__:
        return []
    # keys and values of other widths have maps of their own; the other two append keys, which SelfAttention does not
    if module.in_proj_weight is None or module.bias_k is not None or module.add_zero_attn:
        return []
    return [
        Part(name, module, "in_proj", ("in_proj_weight", "in_proj_bias"), SelfAttention),
        Part(name, module, "out_proj", ("weight", "bias"), SelfAttention, module.out_proj),
    ]
