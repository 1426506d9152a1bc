"""Put on PYTHONPATH of the processes under test: says what stage they are in, and does what a row's
prompt asks for, as a model that crashes or hangs would.

Python imports this before anything else. It patches two functions of the product after their import
and leaves all else as it is.
"""

import importlib.abc
import importlib.machinery
import os
import sys
import threading
import urllib.error
import urllib.request

STAGE_URL = os.environ.get("CHAOS_STAGE_URL", "")
CRASHES = "crash the process"
HANGS = "hang for ever"


def _told(stage):
    """Say to the harness, and wait until it heard; returns whether to go on with it."""
    try:
        with urllib.request.urlopen(f"{STAGE_URL}{stage}", timeout=120):
            return True
    except urllib.error.HTTPError:
        return False


def _announce_encoding(module):
    """``encode_image`` waits until the harness heard of it."""
    encode_image = module.encode_image

    def announced(*args, **kwargs):
        _told("encoding")
        return encode_image(*args, **kwargs)

    module.encode_image = announced


def _obey_prompts(module):
    """A row that is drawn may take its process with it, or never come to an end."""
    draw_picture = module.draw_picture

    def obedient(request):
        if CRASHES in request.prompt and _told("harm"):
            os._exit(139)
        if HANGS in request.prompt and _told("harm"):
            threading.Event().wait()
        return draw_picture(request)

    module.draw_picture = obedient


_PATCHES = {
    "operators.encode": _announce_encoding,
    "operators.engines.simulated": _obey_prompts,
}


class _AfterImport(importlib.abc.MetaPathFinder):
    """Finds what everybody finds, and patches it once it is loaded."""

    def find_spec(self, name, path=None, target=None):
        if name not in _PATCHES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        load = spec.loader.exec_module

        def load_and_patch(module):
            load(module)
            _PATCHES[name](module)

        spec.loader.exec_module = load_and_patch
        return spec


if STAGE_URL:
    sys.meta_path.insert(0, _AfterImport())
