"""Stable Diffusion XL: two text encoders, UNet and VAE of a diffusers StableDiffusionXLPipeline.

Does exactly what ``StableDiffusionXLPipeline.__call__`` does around its scheduler when it is given
a prompt, a negative prompt and a size: both encoders read the same text, the original and the
target size are the image's size, nothing is cropped, and no watermark is drawn. Knows nothing of
slots, samplers or guidance. A refiner is another pipeline class and is not run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from conf.errors import ModelUnusable
from operators.device import to_device
from operators.families.clip_tokens import ClipTokens
from operators.families.family import TEXT_MASK, Tensors, Text
from operators.families.loading import check_latent_channels, load_pipeline, refuse_unet_options
from operators.flow_shift import NoiseLevels
from operators.model_files import ModelFiles

TIME_IDS = 6
"""Original size, crop's corner and target size, two numbers each."""
_SIZES = 256
"""Image sizes whose time ids are kept."""


class StableDiffusionXL:
    """See ``operators.families.family.Family``.

    A text is ``embeddings`` [pieces x tokens, width of both encoders] and ``pooled`` [projection],
    which is that of its first piece. The VAE computes in float32 where its configuration asks for
    it and the others are float16.
    """

    two_pass_guidance = True

    def __init__(self, pipeline: Any, *, device: torch.device, prompt_pieces: int = 1) -> None:
        self.device = device
        self._pipeline = pipeline
        self.unet = pipeline.unet
        self.vae = pipeline.vae
        self.dtype: torch.dtype = pipeline.unet.dtype
        self._readers = tuple(
            (ClipTokens(pipeline, tokenizer, most_pieces=prompt_pieces), encoder)
            for tokenizer, encoder in (
                (pipeline.tokenizer, pipeline.text_encoder),
                (pipeline.tokenizer_2, pipeline.text_encoder_2),
            )
        )
        self._time_ids: dict[tuple[int, int], torch.Tensor] = {}
        if self.vae.dtype == torch.float16 and self.vae.config.force_upcast:
            self.vae.to(dtype=torch.float32)

    @property
    def scheduler_config(self) -> Mapping[str, Any]:
        return dict(self._pipeline.scheduler.config)

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        factor = int(self._pipeline.vae_scale_factor)
        return (int(self.unet.config.in_channels), height // factor, width // factor)

    def noise_levels(self, height: int, width: int, steps: int) -> NoiseLevels:
        return NoiseLevels()

    def count_truncated(self, text: Text) -> int:
        return min(tokens.count_truncated(text) for tokens, _ in self._readers)

    def pieces(self, text: Text) -> int:
        return max(tokens.pieces(text) for tokens, _ in self._readers)

    def embed(self, texts: Sequence[Text]) -> Tensors:
        pieces = self.pieces(texts[0])
        ids = [tokens.read_pieces(texts, pieces).input_ids for tokens, _ in self._readers]
        answers = [
            encoder(to_device(read, self.device), output_hidden_states=True)
            for read, (_, encoder) in zip(ids, self._readers, strict=True)
        ]
        hidden = torch.cat([answer.hidden_states[-2] for answer in answers], dim=-1)
        made = {
            "embeddings": hidden.reshape(len(texts), -1, hidden.shape[-1]).to(self.dtype),
            "pooled": answers[1].text_embeds[::pieces].to(self.dtype),
        }
        if self._pipeline.config.force_zeros_for_empty_prompt:
            absent = to_device(torch.tensor([text is None for text in texts]), self.device)
            made = {
                name: tensor.masked_fill(absent.reshape(-1, *[1] * (tensor.dim() - 1)), 0.0)
                for name, tensor in made.items()
            }
        return made

    def predict(
        self,
        latents: torch.Tensor,
        timesteps: torch.Tensor,
        conditioning: Tensors,
        size: tuple[int, int],
    ) -> torch.Tensor:
        output = self.unet(
            latents.to(self.dtype),
            timesteps,
            encoder_hidden_states=conditioning["embeddings"],
            encoder_attention_mask=conditioning.get(TEXT_MASK),
            added_cond_kwargs={
                "text_embeds": conditioning["pooled"],
                "time_ids": self._time_ids_of(size).expand(len(latents), TIME_IDS),
            },
            return_dict=False,
        )[0]
        return output.float()  # type: ignore[no-any-return]

    def _time_ids_of(self, size: tuple[int, int]) -> torch.Tensor:
        """[TIME_IDS] on the device, where those of the last sizes stay."""
        if size not in self._time_ids:
            if len(self._time_ids) == _SIZES:
                del self._time_ids[next(iter(self._time_ids))]
            values = torch.tensor([*size, 0, 0, *size], dtype=self.dtype)
            self._time_ids[size] = to_device(values, self.device)
        return self._time_ids[size]

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        config = self.vae.config
        latents = latents.to(self.vae.dtype)
        mean, std = config.get("latents_mean"), config.get("latents_std")
        if mean is not None and std is not None:
            latents = latents * _channels(std, latents) / config.scaling_factor
            latents = latents + _channels(mean, latents)
        else:
            latents = latents / config.scaling_factor
        return self.vae.decode(latents, return_dict=False)[0]  # type: ignore[no-any-return]


def load(
    files: ModelFiles, *, dtype: torch.dtype, device: torch.device, prompt_pieces: int = 1
) -> StableDiffusionXL:
    """See ``operators.families.load_family``."""
    pipeline = load_pipeline(
        files,
        dtype=dtype,
        device=device,
        modules=("unet", "vae", "text_encoder", "text_encoder_2"),
        options={"feature_extractor": None, "image_encoder": None, "add_watermarker": False},
    )
    refuse_unet_options(files, pipeline.unet)
    check_latent_channels(files, pipeline.unet, pipeline.vae)
    _check_added_inputs(files, pipeline)
    return StableDiffusionXL(pipeline, device=device, prompt_pieces=prompt_pieces)


def _check_added_inputs(files: ModelFiles, pipeline: Any) -> None:
    """The UNet must take the pooled text and six time ids; a refiner takes five."""
    kind = pipeline.unet.config.addition_embed_type
    if kind != "text_time":
        raise ModelUnusable(
            f"the UNet of {files.path} has addition_embed_type={kind}; expected text_time, as "
            "Stable Diffusion XL has it. Set model.path to another model"
        )
    projection = int(pipeline.text_encoder_2.config.projection_dim)
    width = int(pipeline.unet.config.addition_time_embed_dim)
    found = int(pipeline.unet.config.projection_class_embeddings_input_dim)
    if found != projection + TIME_IDS * width:
        raise ModelUnusable(
            f"the UNet of {files.path} takes {found} added inputs; expected {projection} of the "
            f"pooled text and {TIME_IDS} time ids of {width} each. Refiners are not supported: set "
            "model.path to the base model"
        )


def _channels(values: Sequence[float], latents: torch.Tensor) -> torch.Tensor:
    """One value a channel, [1, c, 1, 1]."""
    there = to_device(torch.tensor(values, dtype=latents.dtype), latents.device)
    return there[None, :, None, None]
