"""The recipe runs from nothing to a folder that diffusers loads; the tokenizer knows every text."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from transformers import CLIPTokenizer

from models.shapes.draw import every_word
from models.shapes.pace import Pace, others_running
from models.shapes.tokenizer import END, MAX_TOKENS, START, build_tokenizer, learn_merges
from models.shapes.train import Recipe, run

STEPS = 20


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[float]]:
    """A folder from a run of a few steps, and the denoiser's losses."""
    folder = tmp_path_factory.mktemp("shapes")
    recipe = Recipe(
        out=folder / "weights",
        work=folder / "work",
        steps=STEPS,
        steps_vae=12,
        steps_text=10,
        pictures=320,
        batch=16,
    )
    return recipe.out, run(recipe)


def test_the_loss_falls_and_stays_finite(trained: tuple[Path, list[float]]) -> None:
    _, losses = trained
    assert len(losses) == STEPS
    assert all(math.isfinite(loss) for loss in losses)
    assert sum(losses[-5:]) < sum(losses[:5])


def test_the_folder_loads_and_makes_pictures_of_both_orientations(
    trained: tuple[Path, list[float]],
) -> None:
    folder, _ = trained
    pipeline = StableDiffusionPipeline.from_pretrained(str(folder), dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    for height, width in ((64, 96), (96, 64)):
        made = pipeline(
            "a small red circle",
            height=height,
            width=width,
            num_inference_steps=2,
            output_type="np",
        ).images
        assert made.shape == (1, height, width, 3)
        assert np.isfinite(made).all()


def test_the_weights_are_small_enough_for_a_repository(trained: tuple[Path, list[float]]) -> None:
    folder, _ = trained
    assert sum(file.stat().st_size for file in folder.rglob("*.safetensors")) <= 14_000_000


def test_a_stopped_run_goes_on_where_it_was(trained: tuple[Path, list[float]]) -> None:
    folder, _ = trained
    recipe = Recipe(
        out=folder,
        work=folder.parent / "work",
        steps=STEPS + 2,
        minutes_vae=0,
        pictures=64,
        batch=4,
        resume=True,
    )
    assert len(run(recipe)) == 2


def test_every_word_of_the_grammar_is_one_token() -> None:
    tokenizer = build_tokenizer(every_word())
    for word in every_word():
        assert len(tokenizer(word)["input_ids"]) == 3


def test_merges_make_each_word_whole() -> None:
    assert learn_merges(["red", "reed"])[-1] in {("re", "ed</w>"), ("r", "eed</w>")}


@pytest.mark.parametrize("text", ["a small 🐈‍⬛ circle", "圆形", "naïve\t\x00 \u200d", ""])
def test_any_text_tokenises_within_the_length(text: str, trained: tuple[Path, list[float]]) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(str(trained[0] / "tokenizer"))
    assert tokenizer.model_max_length == MAX_TOKENS
    ids = tokenizer(text, padding="max_length", truncation=True)["input_ids"]
    assert len(ids) == MAX_TOKENS
    assert ids[0] == tokenizer.convert_tokens_to_ids(START)
    assert tokenizer.convert_tokens_to_ids(END) in ids
    assert tokenizer.unk_token_id == tokenizer.eos_token_id
    assert ids.index(tokenizer.eos_token_id) > 1 or not text


def test_emoji_become_bytes_that_read_back() -> None:
    tokenizer = build_tokenizer(every_word())
    ids = tokenizer("a small 🐈 star")["input_ids"]
    assert "🐈" in tokenizer.decode(ids)


def test_a_busy_machine_takes_threads_away_and_a_quiet_one_gives_them_back() -> None:
    pace = Pace(2)
    assert pace.choose(others=0) == 2
    assert [pace.choose(others=2) for _ in range(3)] == [1, 1, 1]
    assert [pace.choose(others=0) for _ in range(12)][-1] == 2


def test_a_system_without_statistics_counts_as_quiet(tmp_path: Path) -> None:
    assert others_running(tmp_path / "stat") == 0
    (tmp_path / "stat").write_text("cpu 1 2\nprocs_running 3\n", encoding="ascii")
    assert others_running(tmp_path / "stat") == 2
