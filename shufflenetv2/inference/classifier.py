"""Photos in, predictions out: the classifier and its stream of any number of photos."""

import copy
from collections.abc import Callable, Iterable, Iterator
from itertools import repeat
from numbers import Real
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..builder import Weights, resolve
from ..computing import device_for, network_of, unchanged
from ..description import BATCH_SIZE
from ..devices import choose_device
from ..errors import ImageError, IntegrityError
from ..package import count, hub_call, made_by_hub
from ..photos.kinds import Photo, several
from ..photos.transform import PhotoTransform
from .runner import Runner
from .stream import Prediction as Prediction
from .stream import Result as Result
from .stream import answered, fitting, gathered, likeliest, refuse_training

if TYPE_CHECKING:
    from .explain import Explanation

Compute = Callable[[Tensor], Iterable[tuple[list[Prediction], Tensor | None]]]


class Classifier:
    """Callable made by the entry point ``classifier``, whose documentation describes the arguments.

    Attributes:
        model: the network in eval mode, on ``device``, in ``precision``.
        transform: the ``PhotoTransform`` of the weights, with ``max_pixels``, ``upright`` and ``fast_decode``.
        categories: the labels, in the order of the logits.

    Example:
        >>> classify = shufflenetv2.classifier(weights="cifar10")
        >>> [result.predictions[0].label for result in classify.stream(["images/cat.jpg"])]
        ['cat']
        >>> classify.probabilities("images/cat.jpg").shape, classify.features("images/cat.jpg").shape
        (torch.Size([1, 10]), torch.Size([1, 1024]))
    """

    def __init__(
        self,
        weights: Weights,
        *,
        top: int = 5,
        device: str | torch.device | None = None,
        deploy: bool = True,
        runtime: str = "torch",
        precision: str = "float32",
        progress: bool = True,
        max_pixels: int | None = None,
        upright: bool = True,
        fast_decode: bool | str = False,
        min_probability: float = 0.0,
    ) -> None:
        number = isinstance(min_probability, Real) and type(min_probability) is not bool
        if not number or not 0 <= min_probability <= 1:
            raise ValueError(f"min_probability must be from 0 to 1, got {min_probability!r:.80}")
        self.weights = weights
        self.top, self.min_probability = count("top", top, 1), float(min_probability)
        self.device, self.categories = choose_device(device_for(weights, runtime, device)), weights.labels
        self.deploy, self.runtime, self.precision = deploy, runtime, precision
        model = network_of(weights, runtime=runtime, precision=precision, progress=progress, deploy=deploy)
        self.model = self._made = model.to(self.device).eval()
        self._runner = Runner(self.model, self.device)
        reading: dict[str, Any] = {"max_pixels": max_pixels, "upright": upright, "fast_decode": fast_decode}
        self.transform = PhotoTransform(weights.preprocess, weights.in_channels, weights.reference, **reading)

    def __repr__(self) -> str:
        return f"Classifier({', '.join(self.weights.reference)}, top={self.top}, device={str(self.device)!r})"

    def __call__(self, photos: Photo | Iterable[Photo], errors: str = "raise") -> Any:
        """Predict the labels of one photo or several.

        Args:
            photos: a path, bytes, a file object opened in binary mode, a PIL image, a numpy array ``(H, W, 3)`` of
                uint8 in RGB, a uint8 tensor ``(3, H, W)``; or several: a list, a generator or another iterable of
                these, of any length, or a uint8 tensor ``(N, 3, H, W)``.
            errors: of photos that cannot be used: ``"raise"`` the first, or ``"return"`` each in the place of that
                photo's predictions.

        Returns:
            For one photo a list of ``Prediction``, most likely first; for several a list of such lists.

        Raises:
            ImageError: naming the photo that cannot be used, and which element of a list it is.
            TypeError: something else was given, or an element of a list is itself a list or a batch.
            CheckpointError: the network answers with NaN or infinity.
        """
        if errors not in ("raise", "return"):
            raise ValueError(f'errors must be "raise" or "return", got {errors!r:.80}')
        batch = isinstance(photos, Tensor) and photos.dim() == 4
        if several(photos) is not None or (batch and errors == "return"):
            return self._each(photos, errors)  # type: ignore[arg-type]
        if batch:
            return self.predict(self.transform(photos)) if len(photos) else []  # type: ignore[arg-type]
        try:
            return self.predict(self.transform(photos))[0]
        except ImageError as error:
            if errors == "raise":
                raise
            return error

    def _each(self, photos: Iterable[Photo], errors: str) -> list[list[Prediction] | ImageError]:
        outcomes: list[list[Prediction] | ImageError] = []
        for result in self.stream(photos):
            named = ImageError(f"photos[{len(outcomes)}]: {result.error}") if result.error else None
            if named and errors == "raise":
                raise named from result.error
            outcomes.append(named or result.predictions)
        return outcomes

    def stream(
        self,
        photos: Iterable[Photo],
        *,
        batch_size: int = BATCH_SIZE,
        workers: int | None = None,
        features: bool = False,
    ) -> Iterator[Result]:
        """Predict the labels of any number of photos, one after the other.

        Args:
            photos: an iterable of what a call takes; at most three batches are in memory, also of a generator's, which
                may fill one array again and again (its images are copied: paths and bytes are read by the threads).
            batch_size, workers: photos computed at once; threads that read others meanwhile (``None``: one a core).
            features: give the pooled features that the last layer reads as well; needs ``runtime="torch"``.

        Yields:
            One ``Result`` a photo, in order; what is wrong with a photo is its ``error``. Closing the generator, or an
            exception in the loop that reads it, ends the threads.

        Raises:
            TypeError, CheckpointError: as in a call; ``photos`` must be several.
            ValueError: a number is below 1, or the network has no last layer.
        """
        batch_size = count("batch_size", batch_size, 1)
        workers = None if workers is None else count("workers", workers, 1)
        elements = several(photos.unbind() if isinstance(photos, Tensor) and photos.dim() == 4 else photos)
        if elements is None:
            raise TypeError("stream takes an iterable of photos; for one, call the classifier itself")
        alone: Compute = lambda images: zip(self.predict(images), repeat(None), strict=False)  # noqa: E731
        compute = self._with_features() if features else alone
        return self._stream(elements, compute, batch_size, workers, self.transform.keep(photos))

    def probabilities(self, photos: Photo | Iterable[Photo]) -> Tensor:
        """The softmax probabilities of all classes, of one photo or several, as a call takes them, with its errors.

        Returns:
            ``float32 (N, classes)`` on the CPU, in the order of ``categories``; one photo is ``N = 1``.
        """
        return gathered(photos, self.transform, lambda images: self.softmax(self.logits(images)), len(self.categories))

    def features(self, photos: Photo | Iterable[Photo]) -> Tensor:
        """The pooled features, which the last layer reads, of one photo or several, as a call takes them, with its
        errors; ``ValueError`` if the network has no last layer whose input could be given.

        Returns:
            ``float32 (N, head_channels)`` on the CPU, of head_channels 1024 (2048 for x2.0); one photo is ``N = 1``.
        """
        body, last = self._without_last()
        return gathered(photos, self.transform, body, last.in_features)

    def _stream(self, photos: Iterator[Photo], compute: Compute, *reading: Any) -> Iterator[Result]:
        for photo, row, size in answered(compute, self.transform, photos, *reading, device=self.device):
            if isinstance(row, ImageError):
                yield Result(photo, [], error=row)
            else:
                yield Result(photo, row[0], features=row[1], size=size)

    def _with_features(self) -> Compute:
        """The network in two steps: all but its last layer, of which the weights are shared, then that layer."""
        body, last = self._without_last()

        def compute(images: Tensor) -> Iterable[tuple[list[Prediction], Tensor]]:
            with torch.inference_mode():
                pooled = body(images)
                predictions = self.answers(last(pooled.to(last.weight.dtype)).float(), images)
            features = pooled.to("cpu", torch.float32, copy=True)  # outside: of use in training, too
            return zip(predictions, features.unbind(), strict=True)

        return compute

    def _without_last(self) -> tuple[Runner, nn.Linear]:
        refuse_training(self.model)
        last = dict(self.model.named_children()).get("fc")  # its own: a compiled network shows those of another
        if not isinstance(last, nn.Linear):
            raise ValueError("features are the input of the last layer, fc, which this network does not have")
        body = copy.copy(self.model)
        body._modules = {**self.model._modules, "fc": nn.Identity()}
        return Runner(body, self.device), last

    def explain(self, photo: Photo, label: str | int | None = None) -> "Explanation":
        """Where the network looked: what each position of one ``photo`` adds to the logit of ``label``.

        Args:
            photo: as a call takes it.
            label: a name of ``categories`` or an index; ``None`` is the most likely.

        Raises:
            ImageError, TypeError, CheckpointError: as in a call.
            ValueError: there is no such label, or the network does not end in a mean and a linear layer.
        """
        from .explain import explained

        return explained(self, photo, label)

    @torch.inference_mode()
    def predict(self, images: Tensor) -> list[list[Prediction]]:
        """The most likely labels for each of the preprocessed ``images``, ``float32 (N, C, H, W)``.

        Raises:
            TypeError: the images are not preprocessed: they hold uint8.
            ValueError: the images hold NaN or infinity.
            CheckpointError: the network answers with them.
        """
        return self.answers(self.logits(images), images)

    def logits(self, images: Tensor) -> Tensor:
        """float32 ``(N, classes)`` on ``device`` for preprocessed ``images``; ``ValueError`` in training mode."""
        refuse_training(self.model)
        self._runner.model = self.model  # which users may exchange
        return self._runner(images)

    def softmax(self, logits: Tensor) -> Tensor:
        """The probabilities ``(N, classes)`` that ``logits`` stand for, wherever they are shown."""
        return (fitting(logits, len(self.categories)) / self.weights.temperature).softmax(1)

    def answers(self, logits: Tensor, images: Tensor) -> list[list[Prediction]]:
        """The predictions that ``logits``, of ``images``, stand for."""
        return likeliest(self.softmax(logits), images, self.categories, self.top, self.min_probability)

    def __reduce__(self) -> tuple[Any, ...]:
        computing = {each: getattr(self, each) for each in ("deploy", "runtime", "precision")}
        kwargs = computing | {"top": self.top, "min_probability": self.min_probability, "progress": False}
        kwargs["device"] = str(self.device)
        if self.weights.local:  # a file that does not say its labels needs them again
            kwargs["categories"] = self.weights.labels
        state = {"transform": self.transform, "categories": self.categories, "sha256": self.weights.sha256}
        own = self.model is not self._made or not unchanged(self.model, self.weights, **computing)
        state |= {"model": self.model} if own else {}  # which users may exchange or change
        if made_by_hub():
            return *hub_call("classifier", *self.weights.reference, **kwargs), state
        return _rebuild, (self.weights.reference, kwargs), state

    def __setstate__(self, state: dict[str, Any]) -> None:
        if (known := state.pop("sha256")) != self.weights.sha256:
            raise IntegrityError(f"{self.weights.title} has sha256 {self.weights.sha256}; when pickled, {known}")
        self.__dict__.update(state)


def _rebuild(reference: tuple[str, str], kwargs: dict[str, Any]) -> Classifier:
    return Classifier(resolve(*reference, categories=kwargs.pop("categories", None)), **kwargs)
