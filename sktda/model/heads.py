"""The head of a fine-tuned net: what stands behind its pre-trained part."""

from __future__ import annotations

from torch import nn


def head_of(module: nn.Module) -> list[str]:
    """Names of the trainable parameters behind the base of a Hugging Face model that is trained as a whole; else none.

    The module is such a model, or has one as a part. Its base is what its `base_model_prefix` names, or all of a model
    without a head. Where only adapters or some layers of the base are trained, that choice stays.
    """
    bases: list[str] = []
    for name, part in module.named_modules():
        prefix = getattr(part, "base_model_prefix", None)
        if not isinstance(prefix, str) or not hasattr(part, "config") or any(inside(name, base) for base in bases):
            continue
        base = getattr(part, prefix, part) if prefix else part
        bases.append(next(full for full, each in module.named_modules() if each is base))
    values = dict(module.named_parameters())
    within = [value for name, value in values.items() if any(inside(name, base) for base in bases)]
    if not within or not all(value.requires_grad for value in within):
        return []
    return [
        name for name, value in values.items() if value.requires_grad and not any(inside(name, base) for base in bases)
    ]


def inside(name: str, folder: str) -> bool:
    """Whether a name is that of a module or parameter in this module, or its own."""
    return not folder or name == folder or name.startswith(f"{folder}.")
