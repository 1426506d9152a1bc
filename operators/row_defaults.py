"""What the configuration says of columns that a row leaves out."""

from __future__ import annotations

from conf.errors import ConfigError
from conf.schema import RunConfig
from operators.request import RowDefaults
from operators.sampler_names import is_sampler
from operators.samplers_left_out import unknown_sampler


def row_defaults(config: RunConfig) -> RowDefaults:
    """``sampling.*`` where it is set, the model's own defaults elsewhere.

    Raises:
        ConfigError: a default that no row could use.
    """
    sampling, model = config.sampling, config.model
    sampler = model.sampler if sampling.sampler is None else sampling.sampler
    if not is_sampler(sampler):
        raise ConfigError(f"sampling.sampler is '{sampler}'; {unknown_sampler(sampler)}")
    return RowDefaults(
        negative_prompt=sampling.negative_prompt,
        width=model.width if sampling.width is None else sampling.width,
        height=model.height if sampling.height is None else sampling.height,
        steps=model.steps if sampling.steps is None else sampling.steps,
        guidance_scale=(
            model.guidance_scale if sampling.guidance_scale is None else sampling.guidance_scale
        ),
        sampler=sampler,
        num_images=sampling.num_images,
        job_seed=config.job.seed,
        max_pixels=config.engine.max_pixels,
    )
