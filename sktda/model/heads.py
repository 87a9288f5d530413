"""The head of a fine-tuned net: what stands behind its pre-trained part."""

from __future__ import annotations

from typing import Any

from torch import nn

from sktda.model.module_copy import unwrapped


def head_of(net: Any) -> list[str] | None:
    """Names of the parameters behind the base of a Hugging Face model that is trained as a whole, for `parameters=`.

    Of such a net, gradients of the head tell wrong labels more reliably than those of all parameters, which sometimes
    tell none; docs/finetuning.md has numbers. Where only adapters, or parts of the base, are trained, what takes part
    was chosen already.

    Parameters
    ----------
    net : skorch net or torch module
        A model of transformers with a head, or a module that has one, with or without a head, as a part. A net that is
        not fitted must have been given the module itself, not its class.

    Returns
    -------
    names : list of str or None
        None, which means all, where some of the base is frozen, or no head stands behind it.

    Raises
    ------
    TypeError
        For anything else, and a net whose module is not made yet.
    """
    module = getattr(net, "module_", getattr(net, "module", net))
    if not isinstance(module, nn.Module):
        raise TypeError(f"head_of needs a skorch net with a module, or a torch module, got {type(net).__name__}")
    module = unwrapped(module)
    bases = _bases(module)
    if not bases:
        raise TypeError(f"{type(module).__name__} has no model of transformers in it; name its head with patterns")
    values = dict(module.named_parameters())
    base = [value for name, value in values.items() if _within(name, bases)]
    head = [name for name, value in values.items() if value.requires_grad and not _within(name, bases)]
    return head if head and all(value.requires_grad for value in base) else None


def _bases(module: nn.Module) -> list[str]:
    """Names of what `base_model_prefix` names in the outermost models of transformers, or of these themselves."""
    names = {id(part): name for name, part in module.named_modules()}
    found: list[str] = []
    models: list[str] = []
    for name, part in module.named_modules():
        prefix = getattr(type(part), "base_model_prefix", None)
        if isinstance(prefix, str) and not _within(name, models):
            models.append(name)
            found.append(names[id(getattr(part, prefix, part) if prefix else part)])
    return found


def _within(name: str, folders: list[str]) -> bool:
    """Whether a module or parameter is one of these modules, or in one."""
    return any(not folder or name == folder or name.startswith(f"{folder}.") for folder in folders)
