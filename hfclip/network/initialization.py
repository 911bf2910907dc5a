"""Builds a network without drawing its weights.

The gain: see benchmarks/results/gains.md. Drawing the weights of a ViT-B/32 takes longer than its
whole load. Nothing simpler does this. A model that is built on `torch.device("meta")` draws nothing
either, but the first use of that device imports hundreds of modules of torch, which also takes
longer than the load. `torch.nn.utils.skip_init` uses that device too. A patch of `torch.nn.init`
would affect models that other threads build; this mode affects the current thread only.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


class NoInitialization(TorchFunctionMode):
    """Skips the random initialisation of parameters while a model is built.

    The parameters stay as allocated and take no memory, because `load_state_dict(assign=True)`
    replaces them before anything is written to them.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _DRAWS:
            tensor = args[0] if args else kwargs["tensor"]
            if isinstance(tensor, nn.Parameter):
                return tensor
        return func(*args, **kwargs)


_DRAWS = frozenset(
    {
        nn.init.normal_,
        nn.init.uniform_,
        nn.init.kaiming_uniform_,
        Tensor.normal_,
        Tensor.uniform_,
    }
)
