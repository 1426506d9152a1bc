"""Loads the step-batched engine: its model, with the options and batch sizes for this device."""

from __future__ import annotations

from dataclasses import replace

import torch

from conf.schema import EngineConfig, ModelConfig
from operators.compiled import batch_sizes, compile_family
from operators.device import device_for
from operators.engine import EngineInfo
from operators.families import load_family
from operators.families.family import Family
from operators.guidance import guidance_passes
from operators.measured_sizes import measured_sizes, remembered_slots
from operators.model_files import ModelFiles
from operators.model_options import apply_options, pipeline_of
from operators.model_source import find_model
from operators.offload import loads_on, offload
from operators.precision import dtype_of, name_of
from operators.safe_vae import guard_vae
from operators.stepwise_engine import StepwiseEngine

MOST_ON_GPU = 64
MOST_ON_CPU = 32
"""Most rows of a batch whose size is found by measuring."""
COMPILED_SLOTS = 8
"""Rows of a compiled batch where none was ever measured."""


def load(engine: EngineConfig, model: ModelConfig) -> StepwiseEngine:
    """Load the model onto the GPU if there is one, else the CPU.

    Raises:
        ModelUnusable: the model is absent, incomplete or of an unsupported kind.
        ConfigError: an option of ``engine`` is not for this model or machine.
    """
    files = find_model(model)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = dtype_of(engine.precision, device)
    family = _load_family(files, engine, dtype=dtype, device=device)
    info = EngineInfo(
        name="stepwise",
        model=model.name,
        model_revision=files.revision,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        precision=name_of(dtype),
        compile="off",
        compile_seconds=0.0,
        max_batch=engine.max_batch or (MOST_ON_GPU if device.type == "cuda" else MOST_ON_CPU),
        simulated=False,
    )
    usual = (model.height, model.width)
    passes = guidance_passes(model.guidance_scale, two_pass_guidance=family.two_pass_guidance)
    slots = engine.max_batch or remembered_slots(info, engine, usual) or COMPILED_SLOTS
    compilation = compile_family(
        family,
        # how long the job is only the driver knows, and it has decided before it hired us
        "off" if engine.compile == "auto" else engine.compile,
        sizes=batch_sizes(slots, passes=passes),
        pixels=usual,
    )
    info = replace(info, compile=compilation.how, compile_seconds=compilation.seconds)
    compiled = {} if compilation.how == "off" else {usual: slots}
    sizes = (
        None
        if engine.max_batch
        else measured_sizes(info, engine, device_for(device), fixed=compiled)
    )
    return StepwiseEngine(compilation.family, info, sizes=sizes)


def _load_family(
    files: ModelFiles, engine: EngineConfig, *, dtype: torch.dtype, device: torch.device
) -> Family:
    """The model with the options of ``engine``, computing on ``device``."""
    family = load_family(
        files,
        dtype=dtype,
        device=loads_on(engine.offload, device),
        prompt_pieces=engine.prompt_pieces,
    )
    apply_options(pipeline_of(family), engine)
    family = offload(family, engine.offload, device=device)
    return guard_vae(family, pipeline_of(family).vae)
