"""A model's folder: where it is, whether it is whole, its revision.

Reads files only. Knows nothing of torch, so that a plan or a quote can name a model without it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
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
"""The pipeline classes with an adapter and what each needs; a folder without the rest is whole."""
DISPENSABLE = {"StableDiffusion3Pipeline": ("text_encoder_3", "tokenizer_3")}
"""What a model does without where its index names the first of them ``[null, null]``."""
WEIGHTLESS_COMPONENTS = ("scheduler", "tokenizer", "tokenizer_2", "tokenizer_3")
WEIGHT_ENDINGS = (".safetensors", ".bin")
INDEX = "model_index.json"
NEVER_LOADED = ("safety_checker",)
_NEEDS_IMAGE = (
    "Adapter",
    "ControlNet",
    "Edit",
    "Img2Img",
    "Inpaint",
    "Pix2Pix",
    "Refiner",
    "SuperResolution",
    "Upscale",
)
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """A model that was found whole: a folder, or a checkpoint and the folder of its ``config``.

    ``revision`` is the first 16 hex digits of a sha256 over the names and contents of its files;
    ``bytes`` is their total size, ``components`` are the parts that are loaded.
    """

    path: Path
    revision: str
    pipeline_class: str
    bytes: int
    components: tuple[str, ...]
    config: Path | None = None

    @property
    def layout(self) -> Path:
        """The folder with the configurations of the parts."""
        return self.config or self.path

    def settings(self, component: str) -> Mapping[str, Any]:
        """The configuration of a part; empty where it has none."""
        kind = "scheduler_config.json" if component == "scheduler" else "config.json"
        file = self.layout / component / kind
        return _read_json(file) if file.is_file() else {}


def resolve_model_path(path: str) -> Path:
    """The folder that ``path`` means: ``package:x`` lies beside the ``conf`` package."""
    if path.startswith(PACKAGE_PREFIX):
        return Path(conf.__path__[0]).resolve().parent / path.removeprefix(PACKAGE_PREFIX)
    return Path(path).expanduser()


def describe_model(path: str) -> ModelFiles:
    """Check the folder of a diffusers model and name its revision.

    Raises:
        ModelUnusable: the folder is absent or incomplete, or its pipeline needs more than a text.
    """
    folder = resolve_model_path(path)
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise ModelUnusable(
            f"model folder {folder} (model.path={path}) does not exist: expected a folder in the "
            f"diffusers format, found {found}. Set model.path to the folder of a downloaded model"
        )
    return describe_folder(folder)


def describe_folder(folder: Path, *, files: Collection[str] | None = None) -> ModelFiles:
    """Check an existing folder; its revision is that of ``files``, all if None.

    Raises:
        ModelUnusable: the folder is incomplete, or its pipeline needs more than a text.
    """
    index = read_index(folder)
    pipeline_class = pipeline_class_of(folder, index)
    components = components_of(index)
    for component in components:
        check_component(folder, component, index.get(component))
    revision, size = digest(folder, all_files(folder) if files is None else files)
    return ModelFiles(
        path=folder,
        revision=revision,
        pipeline_class=pipeline_class,
        bytes=size,
        components=components,
    )


def peek_pipeline_class(path: str) -> str | None:
    """The pipeline class of a folder; None where ``describe_model`` would say why not."""
    folder = resolve_model_path(path)
    try:
        return pipeline_class_of(folder, read_index(folder))
    except (ModelUnusable, OSError):
        return None


def read_index(folder: Path) -> Mapping[str, Any]:
    """What ``model_index.json`` says.

    Raises:
        ModelUnusable: there is none, or it is damaged.
    """
    file = folder / INDEX
    if not file.is_file():
        names = ", ".join(sorted(entry.name for entry in folder.iterdir())[:10]) or "nothing"
        raise ModelUnusable(
            f"model folder {folder} has no model_index.json; found {names}. "
            "Save the model with diffusers' save_pretrained, or set model.path to its top folder"
        )
    return _read_json(file)


def _read_json(file: Path) -> Mapping[str, Any]:
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


def pipeline_class_of(folder: Path, index: Mapping[str, Any]) -> str:
    """The pipeline class of a model that makes images from text alone, as far as its name tells.

    Raises:
        ModelUnusable: the index names none, or one that starts from an image or makes videos.
    """
    name = index.get("_class_name")
    if not isinstance(name, str):
        raise ModelUnusable(
            f"{folder / INDEX} names no pipeline class: found _class_name={name!r}, expected text "
            "such as StableDiffusionPipeline. Set model.path to a folder with a whole pipeline"
        )
    if "Video" in name:
        raise ModelUnusable(
            f"model folder {folder} is a {name}; it makes videos. Set model.path to a model that "
            "makes images from text"
        )
    if any(word in name for word in _NEEDS_IMAGE):
        raise ModelUnusable(
            f"model folder {folder} is a {name}; it starts from an image, as refiners do. Set "
            "model.path to a model that makes images from text"
        )
    return name


def components_of(index: Mapping[str, Any]) -> tuple[str, ...]:
    """The parts that are loaded: what the family needs, else all that the index names."""
    pipeline_class = str(index.get("_class_name"))
    if pipeline_class in COMPONENTS:
        left_out = DISPENSABLE.get(pipeline_class, ())
        if left_out and index.get(left_out[0]) != [None, None]:
            left_out = ()
        return tuple(name for name in COMPONENTS[pipeline_class] if name not in left_out)
    named = (name for name, entry in index.items() if isinstance(entry, list) and any(entry))
    return tuple(sorted(name for name in named if name not in NEVER_LOADED))


def has_weights(component: str, entry: object) -> bool:
    """Whether a part of the model is a network."""
    made_as = str(entry[-1]) if isinstance(entry, list) and entry else ""
    weightless = any(word in made_as for word in ("Tokenizer", "Scheduler", "Processor"))
    return component not in WEIGHTLESS_COMPONENTS and not weightless


def check_component(folder: Path, component: str, entry: object, *, weights: bool = True) -> None:
    """Check that a part of the model has its files; its ``weights`` may lie elsewhere.

    Raises:
        ModelUnusable: what is missing.
    """
    named = isinstance(entry, list) and len(entry) == 2 and all(isinstance(x, str) for x in entry)
    if not named:
        raise ModelUnusable(
            f"{folder / INDEX} names no usable '{component}': found {entry!r}, "
            "expected [library, class]. Download the model again"
        )
    part = folder / component
    files = [file.name for file in part.iterdir()] if part.is_dir() else []
    if not files:
        raise ModelUnusable(
            f"model folder {folder} has no files in '{component}', which model_index.json names. "
            "Download the model again"
        )
    found = any(name.endswith(WEIGHT_ENDINGS) for name in files)
    if weights and not found and has_weights(component, entry):
        raise ModelUnusable(
            f"{part} has no weights: expected a file ending in {' or '.join(WEIGHT_ENDINGS)}, "
            f"found {', '.join(sorted(files))}. Download the model again (git needs git-lfs)"
        )


def all_files(folder: Path) -> list[str]:
    """The names of all files below a folder, with forward slashes, that are not hidden."""
    names = (file.relative_to(folder) for file in folder.rglob("*") if file.is_file())
    return [name.as_posix() for name in names if not any(x.startswith(".") for x in name.parts)]


def digest(folder: Path, names: Collection[str]) -> tuple[str, int]:
    """The revision that these files of a folder make, and their total size."""
    total = hashlib.sha256()
    size = 0
    for file in sorted(folder / name for name in names):
        content = hashlib.sha256()
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                content.update(chunk)
                size += len(chunk)
        total.update(f"{file.relative_to(folder).as_posix()}\0{content.hexdigest()}\n".encode())
    return total.hexdigest()[:16], size
