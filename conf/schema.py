"""The typed configuration: frozen dataclasses, one per group, with the help text of every key.

How a mapping becomes one of them is ``conf.parser``'s; ``conf.keys`` tells which keys there are.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from conf.config_key import key
from conf.triton_config import TritonConfig

_HOW_FAST = (
    "engine.channels_last",
    "engine.compile",
    "engine.max_batch",
    "engine.offload",
    "engine.simulated_seconds",
    "engine.simulated_speed",
    "engine.vae_slicing",
    "job.commit_images",
    "job.commit_seconds",
    "job.deadline",
    "job.max_attempts",
    "job.max_quarantined",
    "job.priority",
    "job.row_timeout_s",
    "model.needs_gpu",
)
MISSING = "???"
"""Hydra's mark for a value that the user must give."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnsConfig:
    """Which input column holds each known value."""

    prompt: str = key("column with the prompt (required in the input)")
    id: str = key("column with your own label of a row; carried through, used in object names")
    negative_prompt: str = key("column with what the image should not show")
    seed: str = key("column with the seed, 0 to 2^63-1")
    width: str = key("column with the width in pixels")
    height: str = key("column with the height in pixels")
    steps: str = key("column with the number of denoising steps")
    guidance_scale: str = key("column with the guidance scale")
    sampler: str = key("column with the sampler's name")
    num_images: str = key("column with the number of images of a row")
    tags: str = key("column with your tags; carried through")


@dataclass(frozen=True, slots=True, kw_only=True)
class InputConfig:
    """Where the prompts are."""

    path: str = key("file, folder or glob of prompts; a local path or any fsspec URL")
    format: str = key("auto tells by the file ending", choices=("auto", "parquet", "jsonl", "csv"))
    unique_ids: bool = key("refuse an input in which two rows share an id")
    shard_rows: int | None = key(
        "rows of a shard; null chooses 32 to 4096 by the input's size", low=1
    )
    columns: ColumnsConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputConfig:
    """Where the images go, and in which form."""

    path: str = key("folder of this job's output; a local path or any fsspec URL")
    format: str = key(
        "files: one object an image; webdataset: tar shards; parquet: images inside Parquet",
        choices=("files", "webdataset", "parquet"),
    )
    image: str = key("image encoding", choices=("png", "webp", "jpeg"))
    quality: int = key("quality of webp and jpeg, 1 to 100", low=1)
    embed_prompt: bool = key("write prompt and parameters into the image (PNG text or EXIF)")


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingConfig:
    """What a null or absent known column means; null here means the model's own default."""

    negative_prompt: str = key("default negative prompt")
    width: int | None = key("default width in pixels", low=8)
    height: int | None = key("default height in pixels", low=8)
    steps: int | None = key("default number of denoising steps", low=1)
    guidance_scale: float | None = key(
        "default guidance scale; with 1 or less there is no guidance pass", low=0
    )
    sampler: str | None = key("default sampler")
    num_images: int = key("default number of images of a row", low=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Which model makes the images, and its defaults."""

    name: str = key("name in reports and metadata")
    path: str = key(
        "diffusers folder, checkpoint file (.safetensors, .ckpt) or hub id owner/name; 'package:' "
        "marks a folder shipped with ImageMill"
    )
    revision: str | None = key(
        "branch, tag or commit of a hub id; null: main. The job keeps the commit it began with"
    )
    config: str | None = key(
        "of a checkpoint file: diffusers folder or hub id (owner/name, owner/name@revision) of a "
        "model of the same kind, whose configurations and tokenizers are read"
    )
    width: int = key("the model's own width in pixels", low=8)
    height: int = key("the model's own height in pixels", low=8)
    steps: int = key("the model's own number of steps", low=1)
    guidance_scale: float = key("the model's own guidance scale", low=0)
    sampler: str = key("the model's own sampler")
    needs_gpu: bool = key("refuse a cluster without GPUs")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """How images are made."""

    name: str = key(
        "stepwise: step-batched diffusion; pipeline: any diffusers pipeline, called on equal rows; "
        "auto: stepwise where the model allows it, else pipeline; triton: Triton servers make them "
        "(triton.*); simulated: no model, tiny drawn pictures",
        choices=("auto", "stepwise", "pipeline", "triton", "simulated"),
    )
    precision: str = key(
        "arithmetic of the model; auto: bfloat16 on GPUs that have it, float16 on older ones, "
        "float32 on CPUs",
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    compile: str = key(
        "compile the denoiser; regional: its repeated blocks, quickly; full: all of it; auto: "
        "where the job is long enough to earn it back",
        choices=("auto", "off", "regional", "full"),
    )
    attention: str = key(
        "attention backend of diffusers, as flash or sage, for models that take one; sdpa: torch's"
    )
    channels_last: bool = key("keep the convolutions' weights and images channels last")
    vae_tiling: bool = key("decode large images in overlapping tiles; less memory, other pixels")
    vae_slicing: bool = key("decode the images of a batch one by one; less memory")
    offload: str = key(
        "what waits in the machine's memory while the GPU does not need it; model: whole parts of "
        "the pipeline; group: layers, fetched ahead; sequential: single layers, slowest",
        choices=("off", "model", "sequential", "group"),
    )
    allow_tf32: bool = key(
        "let GPUs round float32 products and convolutions to TF32; faster, less exact"
    )
    max_batch: int | None = key(
        "rows of a batch; null: found by measuring the first steps of each image size (pipeline "
        "engine: 8 on a CPU, 16 on a GPU)",
        low=1,
    )
    max_pixels: int = key("largest width x height that a row may ask for", low=64)
    prompt_pieces: int = key(
        "Stable Diffusion 1/2 and XL: a prompt that is longer than its text encoder sees (75 "
        "tokens) is read in up to so many pieces; 1: the rest is cut off, as diffusers does",
        low=1,
    )
    simulated_seconds: dict[int, float] = key(
        "simulated engine: measured seconds of a step by batch size; sizes between are interpolated"
    )
    simulated_speed: float = key("simulated engine: how many times faster than measured", low=0)

    @property
    def runs_a_model(self) -> bool:
        """Whether workers load a model themselves, and need what it needs."""
        return self.name not in ("simulated", "triton")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterConfig:
    """Where it runs."""

    address: str = key("local starts Ray here; auto or ray://host:port uses a running cluster")
    workers: int | None = key(
        "exactly so many workers, or what the cluster can hold of them; null: see min_workers and "
        "max_workers",
        low=1,
    )
    min_workers: int = key("workers that must start in time for a run to go on", low=1)
    max_workers: int | None = key(
        "most workers; null: as many as fit at any time, without GPUs min_workers on each node",
        low=1,
    )
    autoscaled: bool = key(
        "an autoscaler adds nodes for workers that wait and removes them again: workers are asked "
        "for that fit nowhere yet, up to max_workers, without it up to min_workers"
    )
    gpus_per_worker: float | None = key(
        "GPUs of a worker; null: 1 where the cluster has any", low=0
    )
    lease_s: float = key("a worker silent for so long loses its shards and is replaced", low=1)
    heartbeat_s: float = key("how often a worker reports", low=0.05)
    io_threads: int = key("threads of a worker that encode and upload images", low=1)
    start_timeout_s: float | None = key(
        "how long to wait for the workers to begin; null: 120, and 1800 where an autoscaler may "
        "have to add their machines",
        low=1,
    )
    checkpoint_s: float = key(
        "how often sealed shards are written down together, so that resuming need not look at each",
        low=0.05,
    )
    preemption_notice_s: float = key(
        "a worker whose machine is being taken away is killed when it has not left after so long",
        low=1,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class JobConfig:
    """What this job is, and when it gives up."""

    name: str | None = key("name of the job; null: the output folder's name")
    project: str = key("project that pays")
    tags: dict[str, str] = key("your own labels, job.tags.anything=value")
    seed: int = key("seed from which rows without a seed derive theirs", low=0)
    commit_images: int = key("commit a shard's finished rows after so many images", low=1)
    commit_seconds: float = key("commit a shard's finished rows after so many seconds", low=0)
    max_attempts: int = key(
        "a row that killed so many workers, the last one alone, is quarantined", low=1
    )
    row_timeout_s: float = key(
        "a row that keeps the engine busy for longer is quarantined; a worker whose engine does "
        "not come back for so long is replaced",
        low=0.1,
    )
    max_quarantined: float = key("share of rows that may be quarantined with exit status 0", low=0)
    deadline: str | None = key(
        "when the job should be finished, a moment with its offset (2026-11-23T18:00:00+01:00) or "
        "a time from its first start (6h, 90m, 1d12h): no more workers are asked for than that "
        "takes; null: as many as there may be"
    )
    priority: int = key(
        "triton engine: which of the servers' priority levels the rows have, 1 going first; 0: the "
        "servers' own",
        low=0,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageConfig:
    """How the store is reached."""

    endpoint_url: str | None = key(
        "where an S3 store answers; null: AWS_ENDPOINT_URL, the profile's, or AWS itself"
    )
    profile: str | None = key(
        "profile of ~/.aws to act as; null: environment, AWS_PROFILE, the machine's role"
    )
    region: str | None = key("region of the bucket; null: AWS_DEFAULT_REGION or the profile's")
    patience_s: float = key(
        "how long a store operation is tried again before the store counts as unavailable", low=0
    )
    options: dict[str, Any] = key("options of the fsspec file system; never written to the output")


@dataclass(frozen=True, slots=True, kw_only=True)
class PricingConfig:
    """What a worker costs. The keys from ``provider`` on go before what the node's labels say."""

    book: str = key("price book: a name in conf/pricing, or the path of your own YAML file")
    currency: str | None = key("ISO 4217 code of all amounts; null: the price book's")
    price_per_hour: str | None = key(
        "price of one worker, or of one device of the Triton servers, for an hour, a decimal "
        "number; null: by the price book and the node"
    )
    provider: str | None = key("who bills the nodes; null: what the nodes' environment says")
    region: str | None = key("where the nodes are; null: what their labels say")
    instance_type: str | None = key("what the nodes are; null: what their labels say")
    purchase_option: str | None = key(
        "how the nodes are paid: on-demand, spot, reserved or owned; null: what their labels say"
    )
    storage_months: float = key(
        "months for which keeping the images is charged to the job, by the price book", low=0
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetConfig:
    """What a job may cost, all of its runs together, and what all jobs of its project may."""

    max_cost: str | None = key(
        "stop, resumable, before workers and requests cost more, in pricing.currency; null: no cap"
    )
    max_hours: float | None = key(
        "stop, resumable, before the workers together lived for more hours; null: no cap", low=0
    )
    project_max_cost: str | None = key(
        "stop, resumable, before all jobs of job.project cost more together, in pricing.currency; "
        "needs budget.store; null: no cap"
    )
    project_max_hours: float | None = key(
        "stop, resumable, before the workers of all jobs of job.project together lived for more "
        "hours; needs budget.store; null: no cap",
        low=0,
    )
    store: str | None = key(
        "folder or URL where all jobs of the project say what they reserve of its budget; reached "
        "as the output is"
    )
    alert: str | None = key(
        "URL to POST to, or command to run, at 50 and 80 % of a cap and when a run stops for it; "
        "never written to the output"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyConfig:
    """What is known of power and carbon; null: not known, and null in the metadata."""

    watts: float | None = key("power of one worker, where no GPU tells its energy", low=0)
    grid_g_per_kwh: float | None = key("grams of CO2e of a kilowatt-hour here", low=0)
    embodied_g_per_hour: float | None = key(
        "grams of CO2e of making the hardware, for an hour of one worker", low=0
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """Everything that one job was asked."""

    input: InputConfig
    output: OutputConfig
    sampling: SamplingConfig
    model: ModelConfig
    engine: EngineConfig
    triton: TritonConfig
    cluster: ClusterConfig
    job: JobConfig
    storage: StorageConfig
    pricing: PricingConfig
    budget: BudgetConfig
    energy: EnergyConfig

    def to_mapping(self) -> dict[str, Any]:
        """Plain nested values, as written to job.json."""
        return dataclasses.asdict(self)

    def digest(self) -> str:
        """sha256 over everything that decides what the output is (not where or how fast)."""
        plain = self.to_mapping()
        del plain["cluster"], plain["storage"], plain["pricing"], plain["budget"]
        del plain["energy"], plain["output"]["path"]
        plain["triton"] = plain["triton"]["model"]
        for key_path in _HOW_FAST:
            group, _, leaf = key_path.partition(".")
            del plain[group][leaf]
        text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()
