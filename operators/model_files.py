"""Which model a configuration means: where its folder is, whether it is whole, its revision.

Reads files only. Knows nothing of torch, so that a plan or a quote can name a model without it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import conf
from conf.errors import ModelUnusable

PACKAGE_PREFIX = "package:"
COMPONENTS = {
    "StableDiffusionPipeline": ("scheduler", "text_encoder", "tokenizer", "unet", "vae"),
    "StableDiffusionXLPipeline": (
        "scheduler",
        "text_encoder",
        "text_encoder_2",
        "tokenizer",
        "tokenizer_2",
        "unet",
        "vae",
    ),
    "StableDiffusion3Pipeline": (
        "scheduler",
        "text_encoder",
        "text_encoder_2",
        "text_encoder_3",
        "tokenizer",
        "tokenizer_2",
        "tokenizer_3",
        "transformer",
        "vae",
    ),
    "FluxPipeline": (
        "scheduler",
        "text_encoder",
        "text_encoder_2",
        "tokenizer",
        "tokenizer_2",
        "transformer",
        "vae",
    ),
    "PixArtSigmaPipeline": ("scheduler", "text_encoder", "tokenizer", "transformer", "vae"),
}
"""The supported pipeline classes and what each needs; a folder without the rest is whole."""
DISPENSABLE = {"StableDiffusion3Pipeline": ("text_encoder_3", "tokenizer_3")}
"""What a model does without where its index names the first of them ``[null, null]``."""
WEIGHTLESS_COMPONENTS = ("scheduler", "tokenizer", "tokenizer_2", "tokenizer_3")
WEIGHT_ENDINGS = (".safetensors", ".bin")
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """A model folder that was found whole.

    ``revision`` is the first 16 hex digits of a sha256 over the names and contents of its files;
    ``bytes`` is their total size. ``components`` are the parts that are loaded.
    """

    path: Path
    revision: str
    pipeline_class: str
    bytes: int
    components: tuple[str, ...]


def resolve_model_path(path: str) -> Path:
    """The folder that ``path`` means: ``package:x`` lies beside the ``conf`` package."""
    if path.startswith(PACKAGE_PREFIX):
        return Path(conf.__path__[0]).resolve().parent / path.removeprefix(PACKAGE_PREFIX)
    return Path(path).expanduser()


def describe_model(path: str) -> ModelFiles:
    """Check the folder of a diffusers model and name its revision.

    Raises:
        ModelUnusable: the folder is absent or incomplete, or its pipeline class has no engine.
    """
    folder = resolve_model_path(path)
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise ModelUnusable(
            f"model folder {folder} (model.path={path}) does not exist: expected a folder in the "
            f"diffusers format, found {found}. Set model.path to the folder of a downloaded model"
        )
    index = _read_index(folder)
    pipeline_class = _pipeline_class(folder, index)
    components = _components(pipeline_class, index)
    for component in components:
        _check_component(folder, component, index.get(component))
    revision, size = _digest_folder(folder)
    return ModelFiles(
        path=folder,
        revision=revision,
        pipeline_class=pipeline_class,
        bytes=size,
        components=components,
    )


def peek_pipeline_class(path: str) -> str | None:
    """The supported pipeline class of a folder; None where ``describe_model`` would say why not."""
    folder = resolve_model_path(path)
    try:
        return _pipeline_class(folder, _read_index(folder))
    except (ModelUnusable, OSError):
        return None


def _read_index(folder: Path) -> Mapping[str, Any]:
    file = folder / "model_index.json"
    if not file.is_file():
        names = ", ".join(sorted(entry.name for entry in folder.iterdir())[:10]) or "nothing"
        raise ModelUnusable(
            f"model folder {folder} has no model_index.json; found {names}. "
            "Save the model with diffusers' save_pretrained, or set model.path to its top folder"
        )
    try:
        index = json.loads(file.read_bytes())
    except ValueError as error:
        raise ModelUnusable(
            f"{file} is not valid JSON ({error}). Download the model again"
        ) from error
    if not isinstance(index, dict):
        raise ModelUnusable(
            f"{file} holds {type(index).__name__}; expected an object. Download the model again"
        )
    return index


def _pipeline_class(folder: Path, index: Mapping[str, Any]) -> str:
    name = index.get("_class_name")
    if name not in COMPONENTS:
        asks_image = "; it starts from an image, as refiners do" if "Img2Img" in str(name) else ""
        raise ModelUnusable(
            f"model folder {folder} is a {name}{asks_image}; the stepwise engine supports "
            f"{', '.join(COMPONENTS)}. Set model.path to such a model"
        )
    return str(name)


def _components(pipeline_class: str, index: Mapping[str, Any]) -> tuple[str, ...]:
    left_out = DISPENSABLE.get(pipeline_class, ())
    if left_out and index.get(left_out[0]) != [None, None]:
        left_out = ()
    return tuple(name for name in COMPONENTS[pipeline_class] if name not in left_out)


def _check_component(folder: Path, component: str, entry: object) -> None:
    named = isinstance(entry, list) and len(entry) == 2 and all(isinstance(x, str) for x in entry)
    if not named:
        raise ModelUnusable(
            f"{folder / 'model_index.json'} names no usable '{component}': found {entry!r}, "
            "expected [library, class]. Download the model again"
        )
    part = folder / component
    files = [file.name for file in part.iterdir()] if part.is_dir() else []
    if not files:
        raise ModelUnusable(
            f"model folder {folder} has no files in '{component}', which model_index.json names. "
            "Download the model again"
        )
    has_weights = any(name.endswith(WEIGHT_ENDINGS) for name in files)
    if component not in WEIGHTLESS_COMPONENTS and not has_weights:
        raise ModelUnusable(
            f"{part} has no weights: expected a file ending in {' or '.join(WEIGHT_ENDINGS)}, "
            f"found {', '.join(sorted(files))}. Download the model again (git needs git-lfs)"
        )


def _files(folder: Path) -> Iterator[Path]:
    for file in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
        if file.is_file() and not hidden:
            yield file


def _digest_folder(folder: Path) -> tuple[str, int]:
    total = hashlib.sha256()
    size = 0
    for file in _files(folder):
        content = hashlib.sha256()
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                content.update(chunk)
                size += len(chunk)
        total.update(f"{file.relative_to(folder).as_posix()}\0{content.hexdigest()}\n".encode())
    return total.hexdigest()[:16], size
