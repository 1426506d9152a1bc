"""What the ledger believes of a machine, and the command."""

from __future__ import annotations

from tests.k8s.mutations.mutation import GROUP, Mutation, job
from tests.k8s.rendered import drop, put, say

EXPORT = "spec/template/spec/containers/0/command"

MUTATIONS: list[Mutation] = [
    (
        "label-true",
        "a type that nothing chooses",
        "job",
        [
            job(f"{GROUP}/labels/node.kubernetes.io~instance-type", "g6.12xlarge"),
        ],
    ),
    (
        "label-true",
        "spot that is on demand",
        "job",
        [job(f"{GROUP}/labels/ray.io~market-type", "spot")],
    ),
    (
        "label-true",
        "a region that nothing chooses",
        "job",
        [
            job(f"{GROUP}/labels/ray.io~availability-region", "eu-west-1"),
        ],
    ),
    (
        "label-told",
        "GPUs of which nobody says how they are paid",
        "job",
        [
            drop("RayJob", f"{GROUP}/labels/ray.io~market-type"),
        ],
    ),
    (
        "worker-priced",
        "a machine without a price",
        "job",
        [
            job(f"{GROUP}/labels/node.kubernetes.io~instance-type", "g6.12xlarge"),
        ],
    ),
    ("worker-priced", "a book that nobody mounts", "job", [say("/etc/imagemill/", "/etc/prices/")]),
    (
        "worker-priced",
        "a book with an unknown key",
        "job",
        [
            put(
                "ConfigMap",
                "data/prices.yaml",
                "version: 1\ncurrency: USD\nprices: []",
                name="imagemill-prices",
            ),
        ],
    ),
    ("run-plain", "a glob for a shell", "job", [say("/prompts", "/prompts/*.parquet")]),
    ("run-plain", "two commands", "job", [say("imagemill run", "pip install x && imagemill run")]),
    ("run-plain", "another program", "job", [say("imagemill run", "python run.py")]),
    (
        "run-options",
        "an unknown key",
        "job",
        [say("cluster.max_workers", "cluster.maximum_workers")],
    ),
    ("run-options", "an unknown option", "job", [say("--resume", "--restart")]),
    (
        "run-options",
        "a secret on the command line",
        "job",
        [say("model=sdxl", "model=sdxl storage.options.secret=abc")],
    ),
    ("run-options", "a wrong value", "job", [say("start_timeout_s=1800", "start_timeout_s=soon")]),
    (
        "run-options",
        "an unknown sampler",
        "job",
        [say("model=sdxl", "model=sdxl sampling.sampler=eulr")],
    ),
    (
        "run-sound",
        "an autoscaler that the run is not told of",
        "job",
        [say("cluster.autoscaled=true", "cluster.autoscaled=false")],
    ),
    (
        "run-sound",
        "a Ray of its own",
        "kueue",
        [say("cluster.address=auto", "cluster.address=local")],
    ),
    ("run-sound", "a retry that is refused its output", "job", [say("--resume ", "")]),
    ("run-sound", "more workers than pods", "job", [say("max_workers=8", "max_workers=9")]),
    ("run-sound", "GPUs that nobody asks for", "job", [say("cluster.gpus_per_worker=1 ", "")]),
    (
        "run-options",
        "an engine option that a Triton server decides",
        "triton",
        [say("engine=triton", "engine=triton engine.precision=float32")],
    ),
    (
        "command-options",
        "an unknown key of an export",
        "triton",
        [put("Job", f"{EXPORT}/5", "triton.models=sdxl")],
    ),
    (
        "command-options",
        "a command that does not exist",
        "triton",
        [put("Job", f"{EXPORT}/2", "import")],
    ),
]
