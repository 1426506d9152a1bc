"""Pixels to bytes to objects: what the io threads of a worker do with a finished image."""

from __future__ import annotations

from cluster import layout
from cluster.held_shard import HeldShard
from cluster.shard_work import FinishedImage
from cluster.store import Store
from conf.errors import RowRejected
from conf.schema import OutputConfig
from operators.encode import encode_image
from operators.engine import EngineInfo, ImageResult
from operators.request import Request


class ImageUploader:
    """Encodes images and, in the ``files`` format, puts them; other formats keep the bytes for the
    commit. Safe to use from several threads."""

    def __init__(self, store: Store, output: OutputConfig, engine: EngineInfo) -> None:
        self._store = store
        self._output = output
        self._engine = engine

    def upload(self, result: ImageResult, held: HeldShard) -> FinishedImage:
        """Encode and, where each image is an object, put it under its shard's epoch.

        Raises:
            RowRejected: stage ``encode``, the pixels cannot be encoded.
            StoreFull, StoreUnavailable, CommitConflict, CommitUnknown: the put failed.
        """
        request = result.request
        try:
            encoded = encode_image(
                result.pixels,
                image_format=self._output.image,
                quality=self._output.quality,
                parameters=self._parameters(request) if self._output.embed_prompt else None,
            )
        except (ValueError, OSError) as error:
            raise RowRejected(stage="encode", reason="encode_failed", message=str(error)) from error
        stem = held.name_of(request)
        key = layout.image(held.log.shard_id, held.log.epoch, stem, encoded.extension)
        apart = self._output.format == "files"
        if apart:
            self._store.put_if_absent(key, encoded.data)
        return FinishedImage(
            request=request,
            name=f"{stem}.{encoded.extension}",
            key=key,
            data=None if apart else encoded.data,
            bytes=len(encoded.data),
            sha256=encoded.sha256,
            device_ns=result.device_ns,
            truncated_tokens=result.truncated_tokens,
            started_at_ns=result.started_at_ns,
            finished_at_ns=result.finished_at_ns,
        )

    def _parameters(self, request: Request) -> dict[str, str | int | float]:
        """What an image says of itself."""
        return {
            "prompt": request.prompt,
            "negative_prompt": request.negative_prompt,
            "seed": request.seed,
            "width": request.width,
            "height": request.height,
            "steps": request.steps,
            "guidance_scale": request.guidance_scale,
            "sampler": request.sampler,
            "model": self._engine.model,
            "model_revision": self._engine.model_revision,
        }
