"""Prompts longer than a CLIP text encoder sees are read in pieces, where that is asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

from conf.errors import ConfigError
from jobs.maker import settle
from jobs.run import prepare
from operators.samplers import make_scheduler
from tests.stepwise_rows import TINY_MODELS, ask, difference, load, run
from tests.tiny_model import MAX_TOKENS
from tests.tiny_pixart import build_tiny_pixart

SEEN = MAX_TOKENS - 2
"""Words that the encoder sees at once: letters are tokens, and so are the begin and the end."""
FIRST, SECOND = " ".join("ab" * (SEEN // 2)), " ".join("ba" * (SEEN // 2))
TWO = f"{FIRST} {SECOND}"
THREE = f"{TWO} {FIRST}"
CLIP_MODELS = ("stable_diffusion", "sdxl")


@pytest.fixture(scope="module", params=CLIP_MODELS)
def model_path(request, tmp_path_factory):
    build, _ = TINY_MODELS[request.param]
    return build(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def engines(model_path):
    """An engine by the most pieces of a prompt."""
    return {most: load(model_path, prompt_pieces=most) for most in (1, 2)}


def picture(engine, **options):
    return run(engine, [ask(0, **options)])[0]


def test_words_after_the_first_piece_count_only_where_more_pieces_are_read(engines):
    other_end = f"{FIRST} {'x ' * SEEN}"
    read, cut = (
        difference(picture(one, prompt=TWO).pixels, picture(one, prompt=other_end).pixels)
        for one in (engines[2], engines[1])
    )
    assert (read > 3, cut) == (True, 0)


def test_a_picture_of_two_pieces_is_that_of_diffusers_with_both_embeddings(model_path, engines):
    pipeline = DiffusionPipeline.from_pretrained(model_path, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = make_scheduler(dict(pipeline.scheduler.config), "ddim")
    first, pooled = _embedded(pipeline, FIRST)
    second, _ = _embedded(pipeline, SECOND)
    row = ask(0, prompt=TWO, guidance_scale=1.0)
    made = pipeline(
        prompt_embeds=torch.cat([first, second], dim=1),
        **({} if pooled is None else {"pooled_prompt_embeds": pooled}),
        height=row.height,
        width=row.width,
        num_inference_steps=row.steps,
        guidance_scale=row.guidance_scale,
        generator=torch.Generator("cpu").manual_seed(row.seed),
    )
    ours = run(engines[2], [row])[0]
    assert difference(ours.pixels, np.array(made.images[0])) <= 1


def _embedded(pipeline, text):
    """Embeddings of a text, and its pooled ones where the model has them."""
    answer = pipeline.encode_prompt(
        text, device=torch.device("cpu"), num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    return answer[0], answer[2] if len(answer) == 4 else None


def test_rows_of_long_and_short_prompts_share_a_batch_and_change_nothing_for_each_other(engines):
    rows = [
        ask(0, prompt="a fox"),
        ask(1, prompt=TWO),
        ask(2, prompt=TWO, negative_prompt="ugly"),
        ask(3, prompt="a dog", negative_prompt=TWO[::-1]),
    ]
    before = engines[2].stats.ticks
    together = run(engines[2], rows)
    assert engines[2].stats.ticks - before == rows[0].steps
    for row in rows:
        alone = run(engines[2], [row])[row.row_id]
        assert difference(alone.pixels, together[row.row_id].pixels) <= 1


def test_a_short_prompt_is_what_it_always_was(engines):
    whole, in_pieces = (picture(engines[most], prompt=FIRST) for most in (1, 2))
    assert np.array_equal(whole.pixels, in_pieces.pixels)


def test_tokens_beyond_the_last_piece_are_counted(engines):
    assert picture(engines[2], prompt=TWO).truncated_tokens == 0
    assert picture(engines[2], prompt=THREE).truncated_tokens == SEEN
    assert picture(engines[1], prompt=THREE).truncated_tokens == 2 * SEEN


def test_pieces_are_refused_where_no_encoder_reads_them(tmp_path):
    given = [
        "input.path=in.parquet",
        "output.path=out",
        f"model={build_tiny_pixart(tmp_path / 'pixart')}",
        "engine.prompt_pieces=3",
    ]
    for engine in ("stepwise", "pipeline"):
        with pytest.raises(ConfigError) as refused:
            settle(prepare([*given, f"engine={engine}"]))
        assert str(refused.value) == (
            "engine.prompt_pieces=3 is for the stepwise engine with StableDiffusionPipeline or "
            "StableDiffusionXLPipeline, but this job's images are made by a PixArtSigmaPipeline on "
            f"engine {engine}, which reads no prompt in pieces. Give engine.prompt_pieces=1"
        )
