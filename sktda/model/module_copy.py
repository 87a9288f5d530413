"""A copy of a module that can be differentiated by row: in eval mode, without compilation, with one output."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sktda.model.criterion import Packing
from sktda.model.logits import LogitsLoss, logits_of

HALF = {torch.float16, torch.bfloat16}


def unwrapped(module: nn.Module) -> nn.Module:
    """The module inside a compiled one."""
    return getattr(module, "_orig_mod", module)


def module_copy(module: nn.Module, takes: Packing | LogitsLoss | None = None) -> nn.Module:
    """A copy in eval mode without compilation, also of inner modules, with one output, in float32 if it was in half.

    Of several outputs that is the first, or the logits; or all of them packed for a criterion that takes them; or
    logits with the classes as the second axis, for a criterion that has them last.
    """
    module = unwrapped(module)
    _refuse_scripts(module)
    _refuse_foreign_hooks(module)
    _refuse_idle_adapters(module)
    copy = _plain(deepcopy(module, _computed(module)))
    if {value.dtype for value in copy.parameters() if value.is_floating_point()} in ({each} for each in HALF):
        copy = copy.float()  # a gradient of one row in half precision is mostly rounding
    for part in copy.modules():
        if getattr(config := getattr(part, "config", None), "use_cache", False) is True:
            config.use_cache = False  # type: ignore[union-attr] # keys and values for tokens that nobody generates
    copy.eval()
    for part in copy.modules():
        if hasattr(part, "_dora_cache"):
            part.train()  # in eval mode it may keep norms of weights that are not the present ones
    if isinstance(takes, LogitsLoss):
        copy.register_forward_hook(partial(_classes_second, takes))
    else:
        copy.register_forward_hook(_first_output if takes is None else partial(_packed, takes))
    return copy


def _computed(module: nn.Module) -> dict[int, Any]:
    """A memo for deepcopy with detached copies of the tensors on the modules that were computed from others.

    Activations that a forward keeps on `self`, and weights that a hook computes anew before every pass (weight_norm,
    spectral_norm, prune): deepcopy refuses them, and the next pass overwrites them.
    """
    memo: dict[int, Any] = {}

    def note(value: Any) -> None:
        if isinstance(value, Tensor) and value.grad_fn is not None:
            memo[id(value)] = value.detach().clone()
        elif isinstance(value, dict):
            for each in value.values():
                note(each)
        elif isinstance(value, list | tuple):
            for each in value:
                note(each)

    for part in module.modules():
        note({name: value for name, value in vars(part).items() if name != "_modules"})
    return memo


def _refuse_scripts(module: nn.Module) -> None:
    for name, part in module.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            raise TypeError(
                f"the module {name or type(part).__name__!r} is a ScriptModule, whose gradients by row cannot be "
                "taken; pass the net with the module that it was scripted from"
            )


def _refuse_foreign_hooks(module: nn.Module) -> None:
    """TypeError for a hook that a copy would share: what it writes into the original would never reach the copy."""
    own = {id(part) for part in module.modules()} | {id(value) for value in module.parameters()}
    for name, part in module.named_modules():
        for hooks in (part._forward_hooks, part._forward_pre_hooks):
            for hook in hooks.values():
                cells = getattr(hook, "__closure__", None) or ()
                held = [*(getattr(hook, "__defaults__", None) or ()), *(c.cell_contents for c in cells if _filled(c))]
                if any(id(each) in own for each in held):
                    raise TypeError(
                        f"a forward hook of the module {name or type(part).__name__!r} is a function that holds "
                        "modules or parameters of this net, and would still use these in a copy; make it a method of "
                        "the module, or put what it does into forward"
                    )


def _refuse_idle_adapters(module: nn.Module) -> None:
    """ValueError for trained adapters that play no part in the forward pass as it stands: their gradients were 0."""
    for name, part in module.named_modules():
        for state, remedy in (("merged", "unmerge_adapter()"), ("disable_adapters", "enable_adapter_layers()")):
            if getattr(part, state, False) is True and any(value.requires_grad for value in part.parameters()):
                raise ValueError(
                    f"the adapters of {name!r} are {state.replace('disable_adapters', 'switched off')}, so that no "
                    f"output depends on what was trained; call {remedy} first"
                )


def _filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018 (raises where the cell is empty)
    except ValueError:
        return False
    return True


def _plain(module: nn.Module) -> nn.Module:
    module._compiled_call_impl = None  # of module.compile()
    for name, child in module.named_children():
        setattr(module, name, _plain(unwrapped(child)))
    return module


def _first_output(module: nn.Module, arguments: Any, output: Any) -> Any:
    if (found := logits_of(output)) is not None:
        return found
    names = f" of {', '.join(map(repr, output))}" if isinstance(output, Mapping) else ""
    raise TypeError(
        f"forward of {type(module).__name__} returned a {type(output).__name__}{names}; return a tensor, a tuple of "
        "tensors with one entry per row, or an object with `logits`, as models with a head do"
    )


def _packed(packing: Packing, module: nn.Module, arguments: Any, output: Any) -> Any:
    if logits_of(output) is None and not isinstance(output, tuple):
        return _first_output(module, arguments, output)  # which says what is missing
    return packing.close(output)


def _classes_second(loss: LogitsLoss, module: nn.Module, arguments: Any, output: Any) -> Any:
    return loss.classes_second(_first_output(module, arguments, output))


def squeezed(module: nn.Module, arguments: Any, output: Any) -> Any:
    return output.squeeze(-1) if output.ndim == 2 else output  # as NeuralNetBinaryClassifier gives it to a criterion
