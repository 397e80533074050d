"""What the demo answers, from its page and from ``/classify``: one photo, one set of weights, the likeliest labels."""

import asyncio
import base64
import io
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .builder import Weights
from .errors import ShuffleNetError
from .weights.manifest import load_manifest

if TYPE_CHECKING:
    from .inference.classifier import Classifier
    from .inference.stream import Prediction

TOP = 5
MOST = 20  # labels that may be asked for
AT_ONCE = 4  # photos computed at the same time; more wait their turn
WAITING = 64  # photos that may wait
SECONDS = 30.0  # for a photo to arrive at /classify


class Classifiers:
    """Every set of weights there is, by its name; each is loaded when it is first chosen, ``opening`` at once.

    Raises:
        ShuffleNetError: the opening weights cannot be loaded.
    """

    def __init__(self, opening: Weights, device: str | None, max_pixels: int | None = None) -> None:
        from .builder import from_entry

        self._sources = {weights.title: weights for weights in [opening, *map(from_entry, load_manifest())]}
        self._settings: dict[str, Any] = {"top": MOST, "device": device, "max_pixels": max_pixels}
        self._loaded: dict[str, Classifier] = {}
        self._locks = {name: threading.Lock() for name in self._sources}
        self.opening = opening.title
        self[self.opening]

    @property
    def names(self) -> list[str]:
        return list(self._sources)

    def __getitem__(self, name: str) -> "Classifier":
        from .inference.classifier import Classifier

        with self._locks[name]:  # two people who choose the same weights fetch them once
            if name not in self._loaded:
                self._loaded[name] = Classifier(self._sources[name], **self._settings)
            return self._loaded[name]


@dataclass(frozen=True)
class Answer:
    """The likeliest labels of one photo, and how long that took."""

    weights: str
    predictions: "list[Prediction]"
    reading: float  # seconds
    computing: float
    device: str
    overlay: str = ""  # a JPEG as a data: address, of where the network looked, if that was asked for
    unexplained: str = ""  # why there is none


def answer(
    classifiers: Classifiers,
    photo: Any,
    name: object,
    top: object = TOP,
    threshold: object = 0.0,
    called: str = "",
    explain: bool = False,
) -> Answer:
    """Classify ``photo``, which messages call ``called``, by the weights ``name``.

    Raises:
        ImageError: the photo cannot be used.
        ShuffleNetError: there are no weights ``name``, or they cannot be loaded; or ``top`` or ``threshold`` is out of
            range.
    """
    from .photos.decode import open_photo

    if name not in classifiers.names:
        raise ShuffleNetError(f"there are no weights {name!r:.80}; there are: {', '.join(classifiers.names)}")
    if type(top) is not int or not 1 <= top <= MOST:
        raise ShuffleNetError(f"top must be a whole number from 1 to {MOST}, got {top!r:.40}")
    if not isinstance(threshold, (int, float)) or not 0 <= threshold <= 1:
        raise ShuffleNetError(f"threshold must be a number from 0 to 1, got {threshold!r:.40}")
    classifier = classifiers[str(name)]
    started = time.perf_counter()
    image = open_photo(photo, called or None, max_pixels=classifier.transform.max_pixels)
    images = classifier.transform(image)
    read = time.perf_counter()
    [predictions] = classifier.predict(images)
    shown = [each for each in predictions[:top] if each.probability >= threshold]
    computing = time.perf_counter() - read
    overlay = reason = ""
    try:
        overlay = _as_address(classifier.explain(image).overlay(1024)) if explain else ""
    except ValueError as error:  # an exported file has no features to look at
        reason = str(error)
    return Answer(str(name), shown, read - started, computing, str(classifier.device), overlay, reason)


def _as_address(image: Any) -> str:
    image.save(file := io.BytesIO(), "JPEG")
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


class Endpoint:
    """``classify`` is ``/classify`` of a Starlette application: a photo's bytes in, JSON out. docs/demo.md has it.

    Args:
        classifiers: the weights to choose from.
        addresses: whether ``?url=`` may name a photo elsewhere.
    """

    def __init__(self, classifiers: Classifiers, addresses: bool) -> None:
        self._classifiers, self._addresses = classifiers, addresses
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0

    async def classify(self, request: Any) -> Any:
        from starlette.requests import ClientDisconnect
        from starlette.responses import JSONResponse

        if self._waiting >= WAITING:
            return JSONResponse({"error": f"{WAITING} photos are waiting already; try again later"}, 503)
        self._waiting += 1
        try:
            return JSONResponse(await self._respond(request))
        except _RefusalError as refusal:
            return JSONResponse({"error": str(refusal)}, refusal.status)
        except TimeoutError:
            return JSONResponse({"error": f"the photo did not arrive within {SECONDS:g} s"}, 408)
        except ShuffleNetError as error:
            return JSONResponse({"error": str(error)}, 400)
        except ClientDisconnect:  # nobody is there to read it
            return JSONResponse({"error": "the photo did not arrive"}, 400)
        finally:
            self._waiting -= 1

    async def _respond(self, request: Any) -> dict[str, Any]:
        asked = dict(request.query_params)
        if unknown := asked.keys() - {"weights", "top", "threshold", "url"}:
            raise _RefusalError(400, f"unknown: {', '.join(sorted(unknown))}; there are: weights, top, threshold, url")
        url = asked.get("url")
        photo = await _body(request) if url is None else self._allowed(url)
        name = asked.get("weights", self._classifiers.opening)
        top, threshold = _number(asked, "top", int, TOP), _number(asked, "threshold", float, 0.0)
        called = "" if url else "the photo"
        async with self._turn:
            said = await asyncio.to_thread(lambda: answer(self._classifiers, photo, name, top, threshold, called))
        predictions = [each._asdict() for each in said.predictions]
        return {"weights": said.weights, "predictions": predictions, "seconds": round(said.reading + said.computing, 4)}

    def _allowed(self, url: str) -> str:
        from .photos.url import is_url

        if not self._addresses:
            raise _RefusalError(
                403, "addresses are not fetched here; send the photo itself, or start the demo with --urls"
            )
        if not is_url(url):  # it would be opened as a file of this machine
            raise _RefusalError(400, f"url must begin with https://, got {url!r:.80}")
        return url


async def _body(request: Any) -> bytes:
    from .photos.reading import max_bytes

    most, parts, received = max_bytes(), [], 0
    if request.headers.get("content-type", "").startswith("multipart/"):
        raise _RefusalError(415, "send the photo's bytes alone, not as a form: curl --data-binary @photo.jpg")
    async with asyncio.timeout(SECONDS):
        async for part in request.stream():
            received += len(part)
            if received > most:
                raise _RefusalError(413, f"the photo is larger than the {most:,} bytes allowed")
            parts.append(part)
    if not received:
        raise _RefusalError(400, "no photo was sent: curl --data-binary @photo.jpg, or ?url=https://...")
    return b"".join(parts)


class _RefusalError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def _number(asked: dict[str, str], name: str, kind: type, usual: float) -> Any:
    try:
        return kind(asked[name]) if name in asked else usual
    except ValueError as error:
        raise _RefusalError(400, f"{name} must be a number, got {asked[name]!r:.40}") from error
