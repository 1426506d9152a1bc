"""``imagemill models``: what model=NAME may name, and whether it can be used here."""

from __future__ import annotations

from conf.errors import ModelUnusable
from conf.schema import MISSING
from jobs.configure import choices, compose_mapping
from operators.engine_choice import choose_engine
from operators.families import FAMILIES
from operators.model_files import describe_model


def model_lines() -> list[str]:
    """A line a model: name, family, revision, size and defaults, or why it cannot be used."""
    own = (
        "model=/path/to/folder, model=/path/to/file.safetensors or model=owner/name runs your own: "
        f"{', '.join(FAMILIES)} by the stepwise engine, other text-to-image pipelines by the "
        "pipeline engine (docs/models.md)"
    )
    return [*(_line(name) for name in choices("model")), own]


def _line(name: str) -> str:
    model = compose_mapping([f"model={name}"])["model"]
    defaults = (
        f"{model['width']}x{model['height']}, {model['steps']} steps of {model['sampler']}, "
        f"guidance {model['guidance_scale']:g}"
    )
    if model["path"] == MISSING:
        return f"{name:10} give model.path=…, a folder, file or hub id; defaults {defaults}"
    try:
        found = describe_model(model["path"])
        engine = choose_engine("auto", found, model["sampler"])
    except ModelUnusable as error:
        return f"{name:10} cannot be used: {error}"
    return (
        f"{name:10} {found.pipeline_class}, revision {found.revision}, {found.bytes / 1e6:.1f} MB; "
        f"engine {engine.name} ({engine.why}); defaults {defaults}"
    )
