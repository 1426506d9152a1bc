"""Makes rows poisonous: put this folder on PYTHONPATH and mark prompts.

A prompt with ``KILLS`` kills the process whose engine gives it a slot, without a word; one with
``HANGS`` never lets the engine come back. Python imports this module when a process starts, before
anything else; ``operators.work`` is changed when it is imported.
"""

import importlib.util
import os
import signal
import sys
import threading


class _Poisoner:
    """Finds ``operators.work`` as usual and poisons it once it is loaded."""

    def find_spec(self, name, path=None, target=None):
        if name != "operators.work":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def load_and_poison(module):
            load(module)
            _poison(module.Work)

        spec.loader.exec_module = load_and_poison
        return spec


def _poison(work_class):
    start = work_class.start

    def start_or_not(work):
        if "KILLS" in work.request.prompt:
            os.kill(os.getpid(), signal.SIGKILL)
        if "HANGS" in work.request.prompt:
            threading.Event().wait()
        start(work)

    work_class.start = start_or_not


sys.meta_path.insert(0, _Poisoner())
