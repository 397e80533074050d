"""The entry points of this torch.hub repository; ``torch.hub.list`` shows exactly the seven imported below.

torch.hub runs this file anew at every call, with this directory on ``sys.path``. The package beside it is loaded under
a private alias, so that another revision, an installed release or a user's own module called ``shufflenetv2`` neither
disturbs it nor is disturbed, in either order.
"""

import hashlib as _hashlib
import importlib as _importlib
import importlib.util as _importlib_util
import sys as _sys
from pathlib import Path as _Path

dependencies = ["torch", "requests"]


def _alias(package):
    """A name for this state of the package: its directory, its files' names, sizes and modification times."""
    state = [str(package)]
    for file in [*sorted(package.rglob("*.py")), package.parent / "weights.json"]:
        if file.is_file():  # an editor's lock is a link to nowhere
            stat = file.stat()
            state.append(f"{file.relative_to(package.parent).as_posix()} {stat.st_size} {stat.st_mtime_ns}")
    # The name of the directory may hold bytes that are no UTF-8.
    return "_shufflenetv2_" + _hashlib.sha256("\n".join(state).encode(errors="surrogatepass")).hexdigest()[:16]


def _entrypoints():
    # The directory, not this file: in a snapshot of Hugging Face's, each file is a link into a store.
    package = _Path(__file__).parent.resolve() / "shufflenetv2"
    alias = _alias(package)
    if alias not in _sys.modules:
        # What was listed of these directories may be older than a file in them. (importlib.invalidate_caches clears it
        # of all others, too, and fails where two threads call it at once.)
        for directory in list(_sys.path_importer_cache):
            if directory.startswith(str(package)):
                _sys.path_importer_cache.pop(directory, None)
        spec = _importlib_util.spec_from_file_location(
            alias, package / "__init__.py", submodule_search_locations=[str(package)]
        )
        module = _importlib_util.module_from_spec(spec)
        spec.loader.exec_module(module)
        _sys.modules.setdefault(alias, module)  # whole, for other threads import from it at once
    return _importlib.import_module(alias + ".entrypoints")


_module = _entrypoints()
shufflenet_v2_x0_5 = _module.shufflenet_v2_x0_5
shufflenet_v2_x1_0 = _module.shufflenet_v2_x1_0
shufflenet_v2_x1_5 = _module.shufflenet_v2_x1_5
shufflenet_v2_x2_0 = _module.shufflenet_v2_x2_0
classifier = _module.classifier
preprocess = _module.preprocess
categories = _module.categories
