"""A copy of a module that can be differentiated by row: in eval mode, without compilation, with one output."""

from __future__ import annotations

from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sktda.model.criterion import Packing


def unwrapped(module: nn.Module) -> nn.Module:
    """The module inside a compiled one."""
    return getattr(module, "_orig_mod", module)


def module_copy(module: nn.Module, packing: Packing | None = None) -> nn.Module:
    """A copy in eval mode without compilation, also of inner modules, with one output.

    Of several outputs that is the first, or all of them packed, for a criterion that takes them.
    """
    module = unwrapped(module)
    _refuse_scripts(module)
    _refuse_foreign_hooks(module)
    copy = _plain(deepcopy(module, _computed(module)))
    copy.register_forward_hook(_first_output if packing is None else partial(_packed, packing))
    return copy.eval()


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
    return _tensor(module, output[0] if isinstance(output, tuple) else output)


def _packed(packing: Packing, module: nn.Module, arguments: Any, output: Any) -> Any:
    return packing.close(output) if isinstance(output, tuple) else _tensor(module, output)


def _tensor(module: nn.Module, output: Any) -> Tensor:
    if not isinstance(output, Tensor):
        raise TypeError(
            f"forward of {type(module).__name__} returned a {type(output).__name__}; return a tensor, or a tuple of "
            "tensors with one entry per row"
        )
    return output


def squeezed(module: nn.Module, arguments: Any, output: Any) -> Any:
    return output.squeeze(-1) if output.ndim == 2 else output  # as NeuralNetBinaryClassifier gives it to a criterion
