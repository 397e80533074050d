"""``demo``: a web page that shows the five most likely labels of a photo that is dropped, pasted or photographed.

The page is Gradio's. It needs no network: whatever it shows comes from this process, and photos never leave the machine
it runs on. It listens on 127.0.0.1 unless told otherwise.
"""

from __future__ import annotations

import argparse
import html
import importlib
import ipaddress
import os
import socket
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ImageError, ShuffleNetError
from ..package import require, sample_photos
from ..photos.url import is_url
from ..weights.manifest import load_manifest
from .options import add, add_weights, chosen_weights, port

if TYPE_CHECKING:
    from ..builder import Weights
    from ..service import Answer, Classifiers

NOTHING: tuple[dict[str, Any], str, str] = ({}, "", "")  # neither bars nor a duration nor a picture

INTRODUCTION = """\
# ShuffleNet V2
Drop a photo below, paste one, or take one: the bars are the labels the network finds most likely. Each set of weights
knows the classes it was trained on and no others, and names one of them whatever the photo shows."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_weights(parser, ": chosen when the page opens (default: weights that need no network)", default=None)
    add(parser, "--device", "--max-pixels")
    parser.add_argument("--host", help="address to listen on (default: 127.0.0.1; on a Hugging Face Space 0.0.0.0)")
    usual = os.environ.get("GRADIO_SERVER_PORT") or None
    parser.add_argument(
        "--port", type=port, default=usual, help="default: GRADIO_SERVER_PORT, or the first free one from 7860 up"
    )
    parser.add_argument(
        "--urls",
        action="store_true",
        help="let visitors from elsewhere give addresses, which this machine then fetches (default: from 127.0.0.1 "
        "alone, and on a Hugging Face Space)",
    )


def run(arguments: argparse.Namespace) -> int:
    from ..photos.decode import pixel_limit
    from ..photos.reading import max_bytes
    from ..service import Classifiers, Endpoint

    host = listening_address(arguments.host)
    check_address(host, arguments.port)
    pixel_limit()  # a wrong setting is told now, not to the first visitor
    settings = {"server_port": arguments.port, "max_file_size": max_bytes()}
    opening = chosen_weights(arguments) if arguments.weights else _without_network(arguments.arch)
    with tempfile.TemporaryDirectory(prefix="shufflenetv2-demo-") as directory:
        uploads = Path(directory).resolve()
        gradio = import_gradio(uploads)
        from starlette.routing import Route  # which comes with it

        classifiers = Classifiers(opening, arguments.device, arguments.max_pixels)
        addresses = arguments.urls or on_a_space() or is_loopback(host)
        page = build_page(gradio, classifiers, uploads, addresses)
        try:
            app, address, _ = page.launch(**launch_settings(gradio, host), **settings)
            endpoint = Endpoint(classifiers, addresses).classify
            app.router.routes.insert(0, Route("/classify", endpoint, methods=["POST"]))
            print(f"{address} (Ctrl-C stops it)", flush=True)
            threading.Event().wait()
        except KeyboardInterrupt:
            return 0
        finally:
            page.close(verbose=False)
    return 0


def listening_address(host: str | None) -> str:
    host = host or os.environ.get("GRADIO_SERVER_NAME") or ("0.0.0.0" if on_a_space() else "127.0.0.1")
    return host.strip("[]")  # around IPv6 addresses in those of pages


def on_a_space() -> bool:
    return "SPACE_ID" in os.environ  # Hugging Face's own proxy stands in front


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


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


def import_gradio(uploads: Path) -> Any:
    """Gradio, which reads at import where uploads go, and that nothing is to be reported to anyone.

    Raises:
        ImportError: it is missing; the message has the pip line.
    """
    require("the demo", "gradio>=6.31,<7")
    os.environ.update(GRADIO_TEMP_DIR=str(uploads), GRADIO_ANALYTICS_ENABLED="False")
    return importlib.import_module("gradio")


def build_page(gr: Any, classifiers: Classifiers, uploads: Path, addresses: bool) -> Any:
    """The page, a ``gradio.Blocks``.

    Args:
        uploads: where its visitors' photos lie, for at most two hours.
        addresses: whether it takes a photo's address, too.
    """
    from ..service import AT_ONCE, MOST, TOP, WAITING

    with gr.Blocks(title="ShuffleNet V2", analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        gr.Markdown(INTRODUCTION)
        with gr.Row():
            with gr.Column():
                photo = gr.Image(label="Photo", type="filepath", elem_id="photo", height=360)
                paths = [str(path) for path in sample_photos()]
                url = gr.Textbox(
                    label="Or its address", placeholder="https://...", elem_id="url", visible=addresses, max_lines=1
                )
                examples = gr.Examples(paths, photo, label="Samples", cache_examples=False, elem_id="samples")
            with gr.Column():
                weights = gr.Dropdown(
                    classifiers.names, value=classifiers.opening, label="Weights", filterable=False, elem_id="weights"
                )
                with gr.Accordion("More", open=False):
                    top = gr.Slider(1, MOST, value=TOP, step=1, label="Labels", elem_id="top")
                    threshold = gr.Slider(0, 1, value=0, step=0.01, label="Least probability", elem_id="threshold")
                explain = gr.Checkbox(label="Show where it looked", elem_id="explain")
                bars = gr.Label(label="Most likely", elem_id="labels", num_top_classes=MOST)
                duration = gr.Markdown(elem_id="duration")
                picture = gr.HTML(elem_id="overlay")
        # Cleared first, since an error would leave the bars of the photo before.
        clears = {"fn": lambda: NOTHING, "outputs": [bars, duration, picture], "queue": False, "postprocess": False}
        # Raw values both ways: Gradio would open the photo itself, and answer a bad one with a bare "Error"; and its
        # dictionary of labels would lose one of two classes of the same name, which ImageNet has.
        asks = {
            "fn": _answering(gr, classifiers, uploads, addresses),
            "inputs": [photo, url, weights, top, threshold, explain],
            "outputs": [bars, duration, picture],
            "preprocess": False,
            "postprocess": False,
            "show_progress": "minimal",
        }
        hidden = {"api_visibility": "private"}
        gives = [photo.input, photo.clear, weights.input, url.submit, top.release, threshold.release, explain.input]
        photo.input(lambda: "", outputs=url, queue=False, **hidden)
        url.submit(lambda: None, outputs=photo, queue=False, **hidden)
        gr.on(gives, **clears, **hidden).then(**asks, **hidden)
        examples.load_input_event.then(**clears, **hidden).then(**asks, **hidden)
    page.queue(max_size=WAITING, default_concurrency_limit=AT_ONCE)
    return page


def _answering(gr: Any, classifiers: Classifiers, uploads: Path, addresses: bool) -> Callable[..., Any]:
    """What the page asks, with the raw values of its fields."""
    from ..service import answer

    def classify(upload: object, url: object, name: object, top: object, threshold: object, explain: object) -> Any:
        url = url.strip() if addresses and isinstance(url, str) else ""
        if upload is None and not url:
            return NOTHING
        try:
            if upload is None and not is_url(url):
                raise ImageError("the address must begin with https://")
            photo = url if upload is None else _uploaded(upload, uploads)
            top = int(top) if isinstance(top, float) and top.is_integer() else top
            called = "" if upload is None else "the file"
            return shown(answer(classifiers, photo, name, top, threshold, called, explain is True))
        except ShuffleNetError as error:
            raise gr.Error(html.escape(str(error)), duration=None, print_exception=False) from error

    return classify


def _uploaded(upload: object, uploads: Path) -> Path:
    """The file the browser uploaded.

    A request can name any path, and Gradio hands it on: only what lies among the uploads was uploaded.
    """
    path = upload.get("path") if isinstance(upload, dict) else None
    if not isinstance(path, str) or "\0" in path or not Path(path).resolve().is_relative_to(uploads):
        raise ImageError("the photo was not uploaded through this page")
    return Path(path)


def shown(answer: Answer) -> tuple[dict[str, Any], str, str]:
    """The value of a ``gradio.Label``, a line on how long it took, and a picture of where the network looked."""
    tag = '<img alt="Where the network looked" style="width: 100%" src="{}">'
    picture = tag.format(answer.overlay) if answer.overlay else html.escape(answer.unexplained)
    duration = (
        f"{1000 * (answer.reading + answer.computing):.0f} ms on {answer.device}: {1000 * answer.reading:.0f} ms to "
        f"read the photo, {1000 * answer.computing:.0f} ms for the network"
    )
    if not answer.predictions:
        return {}, "no label is as likely as that; " + duration, picture
    confidences = [{"label": each.label, "confidence": each.probability} for each in answer.predictions]
    return {"label": answer.predictions[0].label, "confidences": confidences}, duration, picture


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
