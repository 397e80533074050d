"""``demo``: a web page that shows the five most likely labels of a photo that is dropped, pasted or photographed.

The page is Gradio's. It needs no network: whatever it shows comes from this process, and photos never leave the machine
it runs on. It listens on 127.0.0.1 unless told otherwise.
"""

from __future__ import annotations

import argparse
import html
import importlib
import os
import signal
import socket
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ImageError, ShuffleNetError
from ..package import require, sample_photos
from ..weights.manifest import load_manifest
from .options import add_device, add_weights, chosen_weights, port

if TYPE_CHECKING:
    from ..builder import Weights
    from ..inference import Classifier, Prediction

TOP = 5
AT_ONCE = 4  # photos computed at the same time; more wait their turn
WAITING = 64  # photos that may wait
NOTHING: tuple[dict[str, Any], str] = ({}, "")  # neither bars nor a duration

INTRODUCTION = """\
# ShuffleNet V2
Drop a photo below, paste one, or take one: the bars are the labels the network finds most likely. Each set of weights
knows the classes it was trained on and no others, and names one of them whatever the photo shows."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_weights(parser, ": chosen when the page opens (default: weights that need no network)", default=None)
    add_device(parser)
    parser.add_argument("--host", help="address to listen on (default: 127.0.0.1; on a Hugging Face Space 0.0.0.0)")
    parser.add_argument("--port", type=port, help="default: the first free one from 7860 up")


def run(arguments: argparse.Namespace) -> int:
    from ..photos.decode import max_bytes, pixel_limit

    host = listening_address(arguments.host)
    check_address(host, arguments.port)
    pixel_limit()  # a wrong setting is told now, not to the first visitor
    settings = {"server_port": arguments.port, "max_file_size": max_bytes()}
    opening = chosen_weights(arguments) if arguments.weights else _without_network(arguments.arch)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # like Ctrl-C: the photos are deleted on the way out
    with tempfile.TemporaryDirectory(prefix="shufflenetv2-demo-") as directory:
        uploads = Path(directory).resolve()
        gradio = import_gradio(uploads)
        page = build_page(gradio, Classifiers(opening, arguments.device), uploads)
        try:
            _, address, _ = page.launch(**launch_settings(gradio, host), **settings)
            print(f"{address} (Ctrl-C stops it)", flush=True)
            threading.Event().wait()
        except KeyboardInterrupt:
            return 0
        finally:
            page.close(verbose=False)
    return 0


def listening_address(host: str | None) -> str:
    on_a_space = "SPACE_ID" in os.environ  # Hugging Face's own proxy stands in front
    host = host or os.environ.get("GRADIO_SERVER_NAME") or ("0.0.0.0" if on_a_space else "127.0.0.1")
    return host.strip("[]")  # around IPv6 addresses in those of pages


def check_address(host: str, port: int | None) -> None:
    """Try to listen, since Gradio tries a hundred ports for minutes where the address is at fault.

    Raises:
        OSError: the address is not this machine's, or the port is taken or forbidden.
    """
    try:
        found = socket.getaddrinfo(host, port or 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        with socket.socket(family, kind, protocol) as trial:
            if os.name == "posix":  # a port left a moment ago is free; on Windows this would share a taken one
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
    except OSError as error:
        where = f"{host} port {port}" if port else host
        raise OSError(
            f"cannot listen on {where}: {error.strerror}; --host takes an address of this machine, --port a free port"
        ) from error


def _without_network(arch: str | None) -> Weights:
    from ..builder import from_entry, resolve

    for entry in load_manifest():
        if entry.path and arch in (None, entry.arch):
            return from_entry(entry)
    return resolve(arch, "default")


class Classifiers:
    """Every set of weights there is, by its name; each is loaded when it is first chosen, ``opening`` at once.

    Raises:
        ShuffleNetError: the opening weights cannot be loaded.
    """

    def __init__(self, opening: Weights, device: str | None) -> None:
        from ..builder import from_entry

        self._sources = {weights.title: weights for weights in [opening, *map(from_entry, load_manifest())]}
        self._device = device
        self._loaded: dict[str, Classifier] = {}
        self._locks = {name: threading.Lock() for name in self._sources}
        self.opening = opening.title
        self[self.opening]

    @property
    def names(self) -> list[str]:
        return list(self._sources)

    def __getitem__(self, name: str) -> Classifier:
        from ..inference import Classifier

        with self._locks[name]:  # two people who choose the same weights fetch them once
            if name not in self._loaded:
                self._loaded[name] = Classifier(self._sources[name], top=TOP, device=self._device)
            return self._loaded[name]


def import_gradio(uploads: Path) -> Any:
    """Gradio, which reads at import where uploads go, and that nothing is to be reported to anyone.

    Raises:
        ImportError: it is missing; the message has the pip line.
    """
    require("the demo", "gradio>=6.31,<7")
    os.environ.update(GRADIO_TEMP_DIR=str(uploads), GRADIO_ANALYTICS_ENABLED="False")
    return importlib.import_module("gradio")


def build_page(gr: Any, classifiers: Classifiers, uploads: Path) -> Any:
    """The page, a ``gradio.Blocks``; ``uploads`` is where its visitors' photos lie, for at most two hours."""

    def answer(upload: object, name: object) -> tuple[dict[str, Any], str]:
        if upload is None:
            return NOTHING
        try:
            return classify(classifiers, _uploaded(upload, uploads), name)
        except ShuffleNetError as error:
            raise gr.Error(html.escape(str(error)), duration=None, print_exception=False) from error

    hour = 3600
    with gr.Blocks(title="ShuffleNet V2", analytics_enabled=False, delete_cache=(hour, hour)) as page:
        gr.Markdown(INTRODUCTION)
        with gr.Row():
            with gr.Column():
                photo = gr.Image(label="Photo", type="filepath", elem_id="photo", height=360)
                paths = [str(path) for path in sample_photos()]
                examples = gr.Examples(paths, photo, label="Samples", cache_examples=False, elem_id="samples")
            with gr.Column():
                weights = gr.Dropdown(
                    classifiers.names, value=classifiers.opening, label="Weights", filterable=False, elem_id="weights"
                )
                bars = gr.Label(label="Most likely", elem_id="labels", num_top_classes=TOP)
                duration = gr.Markdown(elem_id="duration")
        # Cleared first, since an error would leave the bars of the photo before.
        clears = {"fn": lambda: NOTHING, "outputs": [bars, duration], "queue": False, "postprocess": False}
        # Raw values both ways: Gradio would open the photo itself, and answer a bad one with a bare "Error"; and its
        # dictionary of labels would lose one of two classes of the same name, which ImageNet has.
        asks = {
            "fn": answer,
            "inputs": [photo, weights],
            "outputs": [bars, duration],
            "preprocess": False,
            "postprocess": False,
            "show_progress": "minimal",
        }
        hidden = {"api_visibility": "private"}
        gr.on([photo.input, photo.clear, weights.input], **clears, **hidden).then(**asks, **hidden)
        examples.load_input_event.then(**clears, **hidden).then(**asks, **hidden)
    page.queue(max_size=WAITING, default_concurrency_limit=AT_ONCE)
    return page


def _uploaded(upload: object, uploads: Path) -> Path:
    """The file the browser uploaded.

    A request can name any path, and Gradio hands it on: only what lies among the uploads was uploaded.
    """
    path = upload.get("path") if isinstance(upload, dict) else None
    if not isinstance(path, str) or "\0" in path or not Path(path).resolve().is_relative_to(uploads):
        raise ImageError("the photo was not uploaded through this page")
    return Path(path)


def classify(classifiers: Classifiers, path: Path, name: object) -> tuple[dict[str, Any], str]:
    """What the page shows of one photo: the data of its bars, and how long it took.

    Raises:
        ImageError: the photo cannot be used.
        ShuffleNetError: the weights cannot be loaded.
        ValueError: there are no weights ``name``.
    """
    from ..photos.decode import open_photo

    if name not in classifiers.names:
        raise ShuffleNetError(f"there are no weights {name!r:.80}; there are: {', '.join(classifiers.names)}")
    classifier = classifiers[str(name)]
    started = time.perf_counter()
    images = classifier.transform(open_photo(path, name="the file"))
    read = time.perf_counter()
    [predictions] = classifier.predict(images)
    done = time.perf_counter()
    duration = (
        f"{1000 * (done - started):.0f} ms on {classifier.device}: {1000 * (read - started):.0f} ms to read the photo, "
        f"{1000 * (done - read):.0f} ms for the network"
    )
    return _bars(predictions), duration


def _bars(predictions: list[Prediction]) -> dict[str, Any]:
    """The value of a ``gradio.Label``."""
    confidences = [{"label": each.label, "confidence": each.probability} for each in predictions]
    return {"label": predictions[0].label, "confidences": confidences}


def launch_settings(gr: Any, host: str) -> dict[str, Any]:
    return {
        "server_name": f"[{host}]" if ":" in host else host,
        # The bundled semi-bold lacks glyphs; naming the two good weights keeps the page from asking for web fonts.
        "theme": gr.themes.Default(
            font=[gr.themes.LocalFont("Weights Sans Pro", weights=(400, 700)), "sans-serif"],
            font_mono=["monospace"],
        ),
        "app_kwargs": {"openapi_url": None},
        "footer_links": [],
        "prevent_thread_lock": True,
        "quiet": True,
        "inbrowser": False,
        "share": False,
        "show_error": False,
        "run_history": False,
        "enable_monitoring": False,
        "ssr_mode": False,
        "pwa": False,
        "mcp_server": False,
    }
