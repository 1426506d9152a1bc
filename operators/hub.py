"""Models of the Hugging Face hub: which commit, and its files in the usual cache.

Only what the model needs is downloaded: no second form or precision of the weights. Everything
else that may lie in the cache is left out of the model's revision, so that two machines agree.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from fnmatch import fnmatch
from pathlib import Path

from conf.errors import ModelUnusable
from operators.model_files import INDEX, components_of, has_weights, read_index

_COMMIT = re.compile(r"[0-9a-f]{40}")
_CONFIGS = ("*.json", "*.txt", "*.model", "*.jinja")
_WEIGHTS = {
    ".safetensors": ("model", "diffusion_pytorch_model"),
    ".bin": ("pytorch_model", "diffusion_pytorch_model"),
}
"""How files with weights are called, by ending, the preferred first."""


def resolve_commit(repo: str, revision: str | None) -> str:
    """The commit that a branch or tag means now; offline, what it meant when it was cached last.

    Raises:
        ModelUnusable: the hub does not know it, or nothing answers and nothing is cached.
    """
    if revision and _COMMIT.fullmatch(revision):
        return revision
    return peek_index(repo, revision).name


def peek_index(repo: str, revision: str | None) -> Path:
    """The folder that holds the model's index, which may hold little else.

    Raises:
        ModelUnusable: see ``resolve_commit``.
    """
    return _snapshot(repo, revision, [INDEX])


def fetch(repo: str, revision: str | None, *, weights: bool = True) -> Path:
    """The folder of a model in the cache, downloaded as far as it is not there.

    Raises:
        ModelUnusable: what could not be had, from where, and what to do.
    """
    folder = peek_index(repo, revision)
    revision, index = folder.name, read_index(folder)
    parts = components_of(index)
    wanted = [INDEX, *_below(parts, _CONFIGS)]
    networks = [part for part in parts if weights and has_weights(part, index.get(part))]
    for ending in _WEIGHTS:
        _snapshot(repo, revision, [*wanted, *_below(networks, _weight_names(ending))])
        networks = [part for part in networks if not list((folder / part).glob(f"*{ending}"))]
        if not networks:
            break
    return folder


def needed_files(folder: Path, names: Collection[str]) -> list[str]:
    """Those of a cached folder's files that ``fetch`` asks for."""
    index = read_index(folder)
    found: list[str] = []
    for part in components_of(index):
        found += _matching(names, _below([part], _CONFIGS))
        kinds = (_matching(names, _below([part], _weight_names(ending))) for ending in _WEIGHTS)
        found += next((kind for kind in kinds if kind), [])
    return [INDEX, *found]


def needed_configs(folder: Path, names: Collection[str]) -> list[str]:
    """Those of a folder's files that say how a checkpoint is to be read."""
    return [INDEX, *_matching(names, _below(components_of(read_index(folder)), _CONFIGS))]


def _weight_names(ending: str) -> list[str]:
    stems = _WEIGHTS[ending]
    return [f"{stem}{shard}{ending}" for stem in stems for shard in ("", "-?????-of-?????")]


def _below(parts: Sequence[str], names: Sequence[str]) -> list[str]:
    return [f"{part}/{name}" for part in parts for name in names]


def _matching(names: Collection[str], patterns: Sequence[str]) -> list[str]:
    return sorted({name for name in names for pattern in patterns if fnmatch(name, pattern)})


def _snapshot(repo: str, revision: str | None, patterns: Sequence[str]) -> Path:
    # late: who uses no hub should not wait for it
    import huggingface_hub
    from huggingface_hub import errors

    try:
        folder = huggingface_hub.snapshot_download(
            repo, revision=revision, allow_patterns=list(patterns)
        )
    except errors.GatedRepoError as error:
        raise _refused(
            repo,
            "wants its licence accepted first",
            "accept it on the model's page, then log in with 'hf auth login' or set HF_TOKEN",
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise _refused(
            repo,
            "is not known there, or is private",
            "check model.path (no folder of this name is here either); for a private model log in "
            "with 'hf auth login' or set HF_TOKEN",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise _refused(
            repo,
            f"has no branch, tag or commit {revision}",
            "check model.revision",
        ) from error
    except Exception as error:
        raise ModelUnusable(_unreachable(repo, revision, error)) from error
    if not (Path(folder) / INDEX).is_file():
        raise _refused(
            repo,
            f"has no {INDEX}",
            "it is not in the diffusers format; set model.path to a model that is, or to a "
            "downloaded checkpoint file",
        )
    return Path(folder)


def _refused(repo: str, why: str, what_to_do: str) -> ModelUnusable:
    from huggingface_hub import constants

    return ModelUnusable(f"the model {repo} on {constants.ENDPOINT} {why}: {what_to_do}")


def _unreachable(repo: str, revision: str | None, error: Exception) -> str:
    from huggingface_hub import constants

    offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
    cause = str(error).strip().partition("\n")[0]
    return (
        f"the model {repo}, revision {revision or 'main'}, cannot be had: {constants.ENDPOINT} was "
        f"not reached{offline} and {constants.HF_HUB_CACHE} holds no whole copy of it "
        f"({type(error).__name__}: {cause}). Connect, or run 'hf download {repo}' where there is a "
        "network and set HF_HOME to the filled cache, or set model.path to a folder (no folder "
        f"{repo} is here)"
    )
