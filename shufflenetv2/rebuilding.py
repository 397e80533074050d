"""A network of the user's, and the tensors from which its file is built up again."""

import copy

import torch
from torch import Tensor, nn

from .description import Description
from .errors import CheckpointError
from .network.model import ShuffleNetV2, spec_of
from .weights.checkpoint import Checkpoint, load

TOLERANCE = 1e-9  # of the largest logit, in float64: rounding gives some 1e-14, an edit far more
# What both networks are shown: height, width, magnitude. A bound on activations shows only where they are large, and
# what depends on the photo's size only where it is another.
SHOWN = ((33, 47, 1.0), (97, 129, 1000.0))
COMPUTED = ("_orig", "weight_g", "weight_v")  # the ends of the keys of which pruning and weight_norm make a weight


def unwrapped(model: nn.Module) -> nn.Module:
    """The network inside DataParallel, AveragedModel or what torch.compile gives."""
    while isinstance(inner := getattr(model, "_orig_mod", getattr(model, "module", None)), nn.Module):
        model = inner
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError(f"save takes the network that was scripted or traced, not its script, a {type(model).__name__}")
    if not isinstance(model, nn.Module) or not isinstance(getattr(model, "fc", None), nn.Module):
        raise TypeError(f"save takes a ShuffleNetV2, got a {type(model).__name__}")
    if "conv1.bias" in model.state_dict():
        raise TypeError(
            "save takes the plain network, and this one is the deploy form; save the network it was made from, and ask "
            "for deploy=True as you load the file"
        )
    return model


def plain_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The state dict under torchvision's keys, also where ``fc`` is one linear layer among dropout and the like."""
    state = {key: _detached(key, tensor) for key, tensor in model.state_dict().items()}
    if computed := [key for key in state if key.endswith(COMPUTED) or "parametrizations" in key]:
        raise CheckpointError(
            f"a weight is computed from others ({computed[0]}), which cannot be read again from a file; make it "
            "permanent: torch.nn.utils.prune.remove, torch.nn.utils.remove_weight_norm, or "
            "torch.nn.utils.parametrize.remove_parametrizations"
        )
    layers = [each for each in model.get_submodule("fc").modules() if isinstance(each, nn.Linear)]
    inside = [key for key in state if key.startswith("fc.")]
    alone = len(layers) == 1 and len(inside) == len(layers[0].state_dict())
    if inside and not alone:
        raise CheckpointError(
            f"the classifier fc holds {len(layers)} linear layers (its tensors: {', '.join(inside[:4])}), so it cannot "
            "be read again from a file; give it one nn.Linear and no other tensors, with nn.Dropout before it if wanted"
        )
    if len(layers) == 1:
        state = {key: tensor for key, tensor in state.items() if not key.startswith("fc.")}
        weight, bias = layers[0].weight.detach(), layers[0].bias
        state |= {"fc.weight": weight, "fc.bias": weight.new_zeros(len(weight)) if bias is None else bias.detach()}
    return state


def _detached(key: str, tensor: object) -> Tensor:
    if not isinstance(tensor, Tensor) or tensor.is_quantized:
        raise CheckpointError(f"the network keeps {key!r}, which is no plain tensor: save it before it is quantised")
    if tensor.is_meta or nn.parameter.is_lazy(tensor):
        raise CheckpointError(f"{key!r} has no values yet (meta, or a lazy layer); compute once before you save")
    if hasattr(tensor, "full_tensor"):  # a DTensor
        raise CheckpointError(
            f"{key!r} is spread over several processes (FSDP): get the full state dict of them all, by "
            "torch.distributed.checkpoint.state_dict, load it into a network of one, and save that"
        )
    if type(tensor) not in (Tensor, nn.Parameter):
        raise CheckpointError(f"the network keeps {key!r} as a {type(tensor).__name__}: save it before it is quantised")
    return tensor.detach()


def has_small_stem(model: nn.Module) -> bool:
    """No tensor tells it; whether the rest of the stem is so too shows when the networks are compared."""
    strides = [each.stride for each in model.get_submodule("conv1").modules() if isinstance(each, nn.Conv2d)]
    return strides[:1] == [(1, 1)]


@torch.inference_mode()  # in which alone a network that was loaded in it can be copied
def check_readable(model: nn.Module, found: Checkpoint, description: Description) -> None:
    """Build the file's network, and compare: in float64 on the CPU, on random inputs of odd sizes."""
    with torch.device("meta"):
        again = ShuffleNetV2(spec_of(description.arch, description.small_stem), found.num_classes, found.in_channels)
    try:
        load(again, Checkpoint({key: tensor.cpu() for key, tensor in found.state_dict.items()}, None, "the network"))
    except CheckpointError as error:
        raise CheckpointError(f"{error}; such a network cannot be read again from a file: undo the edit") from error
    network, again = None, again.cpu().double().eval()
    for height, width, magnitude in SHOWN:
        generator = torch.Generator().manual_seed(0)
        shape = (2, found.in_channels, height, width)
        images = torch.randn(shape, dtype=torch.float64, generator=generator) * magnitude
        try:
            network = network or copy.deepcopy(model).cpu().to(torch.get_default_dtype()).double().eval()
            expected = network(images)
        except Exception as error:  # an edited network may raise anything
            raise CheckpointError(
                f"the network cannot be compared with its file: it fails on images {shape}: {error}"
            ) from error
        if not isinstance(expected, Tensor):
            raise CheckpointError(
                f"the network answers with a {type(expected).__name__}, and read again from a file it would answer "
                "with logits alone; undo the edit (a forward or a hook that returns something else)"
            )
        got = again(images)
        difference = float((got - expected).abs().max()) if got.shape == expected.shape else float("inf")
        if not difference <= TOLERANCE * float(expected.abs().max()):
            raise CheckpointError(
                f"read again from a file, the network would compute something else (logits differ by {difference:.2g}"
                "): a layer without tensors was edited, an activation or a stride for one; undo that"
            )
