"""What ``torch.hub.help`` shows, filled from the manifest.

Assigned and not written as docstrings, since it must survive ``python -OO``.
"""

from . import __version__
from .description import STANDARD
from .network.model import SPECS
from .weights.manifest import DEFAULT_ARCH, default_entry, load_manifest

REPOSITORY = f"org/repo:v{__version__}"  # in the documentation's examples, which pin the release they describe

_NETWORK = """\
ShuffleNet V2 {width}x{size}.

Ma, Zhang, Zheng, Sun, "ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design", ECCV 2018,
https://arxiv.org/abs/1807.11164. The network is torchvision's, bit for bit, with the same state-dict keys.

Args:
    pretrained (bool): True loads the default weights, {default}.
    progress (bool): show the download's progress on stderr.
    weights (str, path or None): the name of weights (any case; without the version the newest), or the path of a
        checkpoint: a PathLike, or a string with a separator or a suffix. Named weights are checked, size and sha256,
        on every load, from the bytes that are loaded. There are:
{table}
    num_classes (int or None): length of the logits; None takes the weights' (without weights, 1000). Another number
        keeps the backbone and gives a new, random classifier; 0 returns the pooled features.
    in_channels (int or None): channels of the images; None takes the weights' (without weights, 3). Of weights for
        three channels, 1 sums the RGB kernels; other numbers repeat and rescale them.
    small_stem (bool or None): True gives the first convolution stride 1 and leaves the max-pool out, for photos of some
        32 pixels: H and W from 8 up, and a quarter of the strides below. None takes the weights' (without weights, and
        for files that do not say, False).
    deploy (bool): return the deploy form: the same function without BatchNorm and channel shuffle, about twice as
        fast, for inference only.

Returns:
    torch.nn.Module: maps float images (N, in_channels, H, W), scaled to [0, 1] and then normalised with mean {mean}
    and std {std}, H and W from 32 up, to logits (N, num_classes). In eval mode with weights or deploy=True (call
    .train() to fine-tune), else in train mode. model.forward_features(images) gives the feature maps of stages 2, 3,
    4 and conv5, of strides 8, 16, 32 and 32.

Raises:
    ValueError: unknown weights, or contradictory or out-of-range arguments.
    OSError: the weights could not be fetched; the message lists every attempt.
    RuntimeError: the bytes are not the ones listed, or a checkpoint does not fit. No model was changed.

Example:
    >>> import torch
    >>> model = torch.hub.load("{repo}", "{arch}", pretrained=True, trust_repo=True)
    >>> preprocess = torch.hub.load("{repo}", "preprocess", "{arch}", trust_repo=True)
    >>> categories = torch.hub.load("{repo}", "categories", "{arch}", trust_repo=True)
    >>> with torch.inference_mode():
    ...     probabilities = model(preprocess("images/cat.jpg")).softmax(1)
    >>> label, probability = categories[probabilities[0].argmax()], probabilities[0].max()
"""


def network(arch: str) -> str:
    entries = [entry for entry in load_manifest() if entry.arch == arch]
    default = default_entry(arch)
    size = ""
    if default:
        size = (
            f": {default.num_params / 1e6:.2f} M parameters, {default.macs / 1e6:.1f} M multiply-adds for one image of "
        )
        size += f"{default.preprocess.crop}x{default.preprocess.crop}"
    preprocess = default.preprocess if default else STANDARD
    rows = [
        f"        {entry.name}: top-1 {entry.metrics.acc1:.2f} %, top-5 {entry.metrics.acc5:.2f} % on "
        f"{entry.metrics.dataset}, {entry.num_classes} classes, {entry.size / 1e6:.1f} MB"
        for entry in entries
    ]
    return _NETWORK.format(
        width=arch.rpartition("_x")[2].replace("_", "."),
        size=size,
        default=default.name if default else "of which there are none",
        table="\n".join(rows) or "        none yet",
        mean=preprocess.mean,
        std=preprocess.std,
        arch=arch,
        repo=REPOSITORY,
    )


CLASSIFIER = """\
Model, preprocessing and labels behind one call: a photo in, its most likely labels out. Needs Pillow.

Args:
    arch (str or None): one of {archs}; None takes the architecture of the weights, or {default}.
    weights (str or path): the name of weights, "default", or the path of a checkpoint that `train` or `save` wrote
        or of a file that `export` wrote; of any other checkpoint of these networks with categories=.
    pretrained (bool): accepted for the habit's sake; a classifier always has weights.
    top (int): how many labels, from 1 up; at most as many as there are classes are returned.
    device (str, torch.device or None): where to compute; None is CUDA if there is one, else the CPU.
    deploy (bool): use the deploy form, the same function about twice as fast.
    runtime (str): "torch", or in what else to compute: "onnxruntime", "openvino", "ncnn" or "executorch". A
        file for it is written into the cache the first time, compared with the model, and used. An exported file runs
        in its own.
    precision (str): "float32", "bfloat16" or "float16": in what to compute. Faster on GPUs and on processors with
        instructions for it; in bfloat16 27 to 29 of 10,000 photos got another first label (docs/performance.md).
    categories (list of str or None): the labels in the order of the logits, for a checkpoint that does not say them.
    max_pixels (int or None): the most pixels of a photo; None is 120 million (50 million for formats that take more
        memory), or SHUFFLENETV2_MAX_PIXELS.
    upright (bool): turn photos as their EXIF orientation says.
    min_probability (float): from 0 to 1; where not even the first label has it, the answer is an empty list. It is no
        detector of photos that show none of the classes.
    fast_decode (bool or "cuda"): let the decoder of large JPEG photos make them smaller: several times as fast on
        photos of 12 megapixels, and no longer bit-equal to torchvision's preset. "cuda": let the graphics card decode
        JPEG photos, which needs torchvision; not bit-equal either.
    progress (bool): show the download's progress on stderr.

Returns:
    callable: given a photo (path, https:// address, bytes, file object, PIL image, numpy array (H, W, 3) or uint8
    tensor (3, H, W)) it returns a list of Prediction(label, probability, index), most likely first; given several (a
    list, a generator, or a uint8 tensor (N, 3, H, W)), a list of such lists; with errors="return" an ImageError in the
    place of what cannot be used. .probabilities(photos) gives all classes (N, classes), .features(photos) the pooled
    features (N, C), .stream(photos) one result after the other, .explain(photo) where the network looked. Any number of
    threads may share one: each gets the answers that it would get alone.

Raises:
    ImportError: Pillow is missing; the message has the pip line.
    ValueError: unknown architecture or weights; on a call, a photo that cannot be used.
    OSError, RuntimeError: the weights could not be fetched or do not fit.
    RuntimeError: the device cannot be used on this machine.

Example:
    >>> import torch
    >>> classify = torch.hub.load("{repo}", "classifier", trust_repo=True)
    >>> best = classify("images/cat.jpg")[0]
    >>> label, probability = best.label, best.probability
""".format(archs=", ".join(SPECS), default=DEFAULT_ARCH, repo=REPOSITORY)


PREPROCESS = """\
The transform that turns photos into the input one weights file was trained for. Needs Pillow; fetches nothing.

Args:
    arch (str or None): one of {archs}; None takes the architecture of the weights, or {default}.
    weights (str or path): the name of weights, "default", or the path of a checkpoint that `train` wrote.
    in_channels (int or None): None takes the weights'; 3, or 1 for grey input, normalised with the means of mean and
        standard deviation (approximate: the zero padding of the first convolution is not equivalent).
    batch (bool): False takes one photo and gives (in_channels, crop, crop), as torchvision's ImageFolder and other
        data sets want it of their transform=.
    max_pixels (int or None), upright (bool), fast_decode (bool or "cuda"): as for classifier.

Returns:
    callable: photos (a path, https:// address, bytes, file object, PIL image, numpy array (H, W, 3), uint8 tensor
    (3, H, W) or (N, 3, H, W), or a list of them) -> float32 tensor (N, in_channels, crop, crop), bit-equal to
    torchvision's preset for these weights. It can be pickled into DataLoader workers.

Raises:
    ImportError: Pillow is missing; the message has the pip line.
    ValueError: unknown architecture or weights; on a call, a photo that cannot be used.

Example:
    >>> import torch
    >>> preprocess = torch.hub.load("{repo}", "preprocess", "shufflenet_v2_x1_0", trust_repo=True)
    >>> preprocess("images/cat.jpg").shape
    torch.Size([1, 3, 224, 224])
""".format(archs=", ".join(SPECS), default=DEFAULT_ARCH, repo=REPOSITORY)


CATEGORIES = """\
The labels of one weights file, in the order of the logits. Fetches nothing.

Args:
    arch (str or None): one of {archs}; None takes the architecture of the weights, or {default}.
    weights (str or path): the name of weights, "default", or the path of a checkpoint that `train` wrote.

Returns:
    list of str: for the ImageNet weights 1000 labels, equal to torchvision's.

Raises:
    ValueError: unknown architecture or weights.

Example:
    >>> import torch
    >>> torch.hub.load("{repo}", "categories", trust_repo=True)[281]
    'tabby'
""".format(archs=", ".join(SPECS), default=DEFAULT_ARCH, repo=REPOSITORY)
