"""A model of ImageMill in Triton's python backend; written by ``imagemill triton export``.

The code beside it is a copy of ImageMill's own, so that the server needs torch, diffusers and
transformers and nothing else of it.
"""

import logging
import sys
from pathlib import Path
from typing import Any

import triton_python_backend_utils as backend

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER / "imagemill"))

from operators.triton.serving import ServedModel  # noqa: E402


class TritonPythonModel:
    """What Triton calls, from one thread."""

    def initialize(self, args: dict[str, str]) -> None:
        logging.basicConfig(level=logging.INFO, format="%(levelname).1s imagemill: %(message)s")
        self._model = ServedModel(FOLDER, args, backend)

    def execute(self, requests: list[Any]) -> list[Any] | None:
        return self._model.execute(requests)

    def finalize(self) -> None:
        self._model.finalize()
