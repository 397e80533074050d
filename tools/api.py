"""The API pages: what the docstrings of the public names say, as HTML that needs no network."""

import warnings
from pathlib import Path

import pdoc

import shufflenetv2


def api(folder: Path) -> None:
    """Write ``index.html`` and a page for the package.

    Raises:
        UserWarning: pdoc found something that it could not show.
    """
    for name in shufflenetv2.__all__:  # imported on first use, which pdoc does not wait for
        setattr(shufflenetv2, name, getattr(shufflenetv2, name))
    pdoc.render.configure(docformat="google", footer_text="ShuffleNet V2 for torch.hub", show_source=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "Failed to initialize NumPy")  # torch says so where there is none
        pdoc.pdoc("shufflenetv2", output_directory=folder)
