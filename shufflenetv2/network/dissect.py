"""A plain network taken apart into layers that are understood, order included; anything else is refused by name.

One rule covers what is understood: a normalisation folds into the convolution before it, and every other module that
may stand there is taken as it is. Whatever does not stand where the paper's network has it, or runs code of its own, is
a ``ValueError`` that names the layer (a ``TypeError`` if it is no such network at all).
"""

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ..package import NAME, made_by_hub
from .deploy_form import DeployedShuffleNetV2, MaxPool

# What may stand in a ReLU's place: elementwise and without parameters, so that the order of channels makes no
# difference. The first ones never fall (a LeakyReLU of positive slope), so they commute with the max-pool.
_RISING = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.Identity)
_ACTIVATIONS = (*_RISING, nn.Hardswish, nn.SiLU)
_PARTS = ("conv1", "maxpool", "stage2", "stage3", "stage4", "conv5", "fc")
_CODE = ("forward", "_forward_impl", "forward_features", "_conv_forward", "__call__", "_call_impl")
_RECOMPUTING = ("WeightNorm", "SpectralNorm", "BasePruningMethod")  # torch's hooks that make the weight anew


def refuse(name: str, reason: str, remedy: str = "use the plain network, or undo the edit") -> NoReturn:
    raise ValueError(f"deploy cannot reproduce {name}: {reason}; {remedy}")


def checked_copy(model: nn.Module) -> nn.Module:
    """A copy of ``model`` in float64 on the CPU, its classifier left out.

    Raises:
        TypeError, ValueError: it is no ShuffleNet V2, is not in eval mode, has no values, or runs code of its own.
    """
    if type(model).__name__ == DeployedShuffleNetV2.__name__:
        raise TypeError("deploy takes the plain network, and this one is the deploy form already")
    traced = isinstance(model, torch.fx.GraphModule)  # its class bears the network's name
    wrapped = traced or isinstance(model, torch.jit.ScriptModule) or hasattr(model, "_orig_mod")
    missing = [part for part in _PARTS if not isinstance(getattr(model, part, None), nn.Module)]
    if wrapped or missing:
        inner = "; give it the network inside, model.module" if hasattr(model, "module") else ""
        without = f" without {', '.join(missing)}" if missing else ""
        raise TypeError(
            "deploy takes a ShuffleNetV2 as it was built, not wrapped, traced, scripted or compiled, got "
            f"{'GraphModule' if traced else type(model).__name__}{without}{inner}"
        )
    if trained := [name or "this one" for name, module in model.named_modules() if module.training]:
        raise ValueError(
            f"deploy takes a model in eval mode, and {trained[0]} is in training mode, where BatchNorm uses the "
            "statistics of each batch, which cannot be folded. Call model.eval() first."
        )
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_meta or is_lazy(tensor):
            what = "is on the meta device" if tensor.is_meta else "has a lazy module that saw no image yet"
            raise ValueError(
                f"deploy takes a model with values, and this one {what}; load weights first, or run it once"
            )
    for name, module in model.named_modules():
        if name.partition(".")[0] != "fc" and ".parametrizations." not in name:
            _check_code(name or "the network", module)
    body = copy.copy(model)  # a shallow one, to leave the classifier out
    body._modules = {**model._modules, "fc": nn.Identity()}
    return refreshed(copied("the network", refreshed(body)).to("cpu", torch.float64))


def copied(name: str, module: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(module)
    except (RuntimeError, TypeError) as error:  # a weight computed from others, a lock, an open file
        refuse(name, f"it cannot be copied ({str(error).partition('. ')[0]})")


def _check_code(name: str, module: nn.Module) -> None:
    """What runs when ``module`` is called comes from torch, torchvision or this package, and nothing is hooked on.

    A subclass that changes nothing is none the worse for it.
    """
    for method in _CODE:
        function = getattr(type(module), method, None)
        home = getattr(function, "__globals__", {}).get("__name__", "")
        known = function is None or home.partition(".")[0] in ("torch", "torchvision", NAME) or made_by_hub(home)
        if method in vars(module) or not known or hasattr(function, "__wrapped__"):
            refuse(name, f"{type(module).__name__} has a {method} of its own")
    if module._compiled_call_impl is not None:
        refuse(name, "it is compiled", "deploy first, then compile the deploy form")
    for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"):
        if not all(_recomputes(hook) for hook in getattr(module, kind).values()):
            refuse(name, "it has a hook", "remove the hook, and register it on the deploy form")


def _recomputes(hook: object) -> bool:
    return any(base.__name__ in _RECOMPUTING for base in type(hook).__mro__)


def refreshed(module: nn.Module) -> nn.Module:
    """``module``, after pruning and the older weight_norm and spectral_norm have made each weight anew.

    The weight they leave behind cannot be copied, is old after loading, and keeps its dtype.
    """
    for each in module.modules():
        for hook in each._forward_pre_hooks.values():
            if _recomputes(hook):
                hook(each, ())
    return module


@dataclass(frozen=True)
class Layer:
    """A convolution with the normalisation behind it folded in, and the activation after both."""

    kind: str
    original: nn.Conv2d
    weight: Tensor  # float64, on the CPU
    bias: Tensor
    activation: nn.Module | None

    @property
    def depthwise(self) -> bool:
        return self.kind == "depthwise"


def read(model: nn.Module, name: str, kinds: str, channels: int | None = None) -> list[Layer]:
    """The layers of the Sequential ``name``, which must be of these ``kinds`` and begin with ``channels``."""
    modules = [each for each in sequence(model, name) if type(each[1]) is not nn.Identity]
    layers: list[Layer] = []
    for kind, activated in ((each.rstrip("+"), each.endswith("+")) for each in kinds.split()):
        at, convolution = modules.pop(0) if modules else (name, None)
        norm = modules.pop(0) if modules and _may_normalise(modules[0][1]) else None
        with _named(at):
            _check_convolution(at, convolution, kind, channels)
            assert isinstance(convolution, nn.Conv2d)
            weight, bias = _folded(convolution, norm)
        activation = None
        if activated and modules and type(modules[0][1]) in _ACTIVATIONS:
            activation = modules.pop(0)[1]
            activation = nn.ReLU(inplace=True) if type(activation) is nn.ReLU else copy.deepcopy(activation)
        layers.append(Layer(kind, convolution, weight, bias, activation))
        channels = len(weight)
    if modules:
        refuse(modules[0][0], f"expected nothing more there, got {type(modules[0][1]).__name__}")
    return layers


def sequence(model: nn.Module, name: str) -> list[tuple[str, Any]]:
    """The members of the Sequential ``name`` by their own names; one may be there several times."""
    parent, _, last = name.rpartition(".")
    found = getattr(model.get_submodule(parent), last, None)
    if not isinstance(found, nn.Sequential) or type(found).forward is not nn.Sequential.forward:
        refuse(name, f"expected a Sequential, got {_what(found)}")
    if None in found._modules.values():
        refuse(name, "one of its members is None")
    return [(f"{name}.{key}", module) for key, module in found._modules.items()]


@contextlib.contextmanager
def _named(layer: str) -> Iterator[None]:
    """Whatever else an edited layer raises is a refusal of that layer: attributes set by hand may be anything."""
    try:
        yield
    except (ArithmeticError, AttributeError, RuntimeError, TypeError) as error:
        refuse(layer, f"its attributes do not fit together ({error})")


def _what(module: object) -> str:
    return "nothing" if module is None else type(module).__name__


def _check_convolution(name: str, layer: Any, kind: str, channels: int | None) -> None:
    conv = nn.Conv2d
    code = (getattr(type(layer), "forward", None), getattr(type(layer), "_conv_forward", None))
    if not isinstance(layer, conv) or code != (conv.forward, conv._conv_forward):
        refuse(name, f"expected a Conv2d there, got {_what(layer)}")
    kernel, stride, padding = (_pair(getattr(layer, each)) for each in ("kernel_size", "stride", "padding"))
    shape = (layer.out_channels, layer.in_channels // layer.groups, *kernel)
    if layer.weight.shape != shape:
        refuse(name, f"it says that its weight is {shape}, and it is {tuple(layer.weight.shape)}")
    if layer.padding_mode != "zeros":
        refuse(name, f"it pads with padding_mode={layer.padding_mode!r} instead of zeros")
    if channels not in (None, layer.in_channels):
        refuse(name, f"it reads {layer.in_channels} channels, and what comes before it gives {channels}")
    if kind == "depthwise":
        fits, wanted = layer.groups == layer.in_channels == layer.out_channels, "depthwise, groups = channels"
    elif kind == "pointwise":
        plain = (kernel, stride, layer.groups) == ((1, 1), (1, 1), 1)
        fits, wanted = plain and padding in ((0, 0), "valid", "same"), "1x1, stride 1, no padding, no groups"
    else:
        fits, wanted = layer.groups == 1, "no groups"
    if not fits:
        got = f"kernel_size={kernel}, stride={stride}, padding={padding}, groups={layer.groups}"
        refuse(name, f"expected a convolution ({wanted}), got one with {got}")


def _pair(value: Any) -> Any:
    """The two numbers that an attribute stands for; one number, set by hand, is as good to torch."""
    return (value, value) if isinstance(value, int) else value


def _may_normalise(module: nn.Module) -> bool:
    frozen = type(module).__name__ == "FrozenBatchNorm2d"  # torchvision's, which is not imported for it
    return frozen or isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm)


def _folded(convolution: nn.Conv2d, norm: tuple[str, nn.Module] | None) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution with the named ``norm`` behind it."""
    weight = exact(convolution.weight)
    bias = weight.new_zeros(len(weight)) if convolution.bias is None else exact(convolution.bias)
    if norm is None:
        return weight, bias
    name, module = norm
    mean, variance, scale, shift = (getattr(module, each) for each in ("running_mean", "running_var", "weight", "bias"))
    if mean is None or variance is None:
        refuse(name, "it keeps no running statistics, so it normalises by those of each batch")
    sizes = {len(each) for each in (mean, variance, scale, shift) if each is not None}
    if sizes != {len(weight)}:
        refuse(name, f"it normalises {sizes.pop()} channels, and the convolution before it gives {len(weight)}")
    scale = weight.new_ones(len(weight)) if scale is None else exact(scale)
    shift = weight.new_zeros(len(weight)) if shift is None else exact(shift)
    folded = fuse_conv_bn_weights(weight, bias, exact(mean), exact(variance), float(module.eps), scale, shift)  # type: ignore[arg-type]
    return folded[0].detach(), folded[1].detach()


def exact(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float64)  # on the CPU, since not every device has float64


def pooled(model: nn.Module, activation: nn.Module | None) -> nn.Sequential:
    """The stem's max-pool and activation, the pool first where that makes no difference: it leaves a quarter."""
    activation = nn.Identity() if activation is None else activation
    rising = isinstance(activation, _RISING) and getattr(activation, "negative_slope", 1) >= 0
    pool = _pool(model)
    return nn.Sequential(*((pool, activation) if rising else (activation, pool)))


def _pool(model: nn.Module) -> nn.Module:
    pool = model.get_submodule("maxpool")
    if type(pool) is nn.Identity:
        return pool
    pairs = [_pair(getattr(pool, each, None)) for each in ("kernel_size", "stride", "padding", "dilation")]
    standard = pairs == [(3, 3), (2, 2), (1, 1), (1, 1)]
    maxima = type(pool).forward is nn.MaxPool2d.forward and not pool.ceil_mode and not pool.return_indices
    if not (standard and maxima):
        refuse("maxpool", f"expected MaxPool2d(kernel_size=3, stride=2, padding=1) or Identity, got {pool}")
    return MaxPool()
