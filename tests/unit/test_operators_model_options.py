"""Each option of an engine's configuration reaches the model, or is refused in words."""

from __future__ import annotations

import pytest
import torch

from conf.errors import ConfigError, OptionRefused
from operators.attention_choice import refuse_attention
from operators.families import load_family
from operators.model_files import describe_model
from operators.model_options import apply_options, denoiser_of, pipeline_of
from operators.offload import loads_on, offload
from tests.engine_config import engine_config
from tests.stepwise_rows import ask, difference, load, new_engine, run
from tests.tiny_flux import build_tiny_flux
from tests.tiny_model import SIZE, build_tiny_stable_diffusion
from tests.tiny_pixart import build_tiny_pixart
from tests.tiny_sd3 import build_tiny_sd3
from tests.tiny_sdxl import build_tiny_sdxl

CPU, GPU = torch.device("cpu"), torch.device("cuda")
ROWS = [ask(0), ask(1, guidance_scale=1.0, sampler="dpmpp_2m"), ask(2, height=2 * SIZE)]


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    return build_tiny_stable_diffusion(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def plain(model_path):
    return run(load(model_path), ROWS)


def family_of(model_path, dtype=torch.float32):
    return load_family(describe_model(str(model_path)), dtype=dtype, device=CPU)


def same(made, plain):
    return all(difference(made[n].pixels, plain[n].pixels) <= 1 for n in plain)


def test_channels_last_reaches_denoiser_and_vae_and_changes_no_picture(model_path, plain):
    engine = load(model_path, channels_last=True)
    for module in (engine._family.unet, engine._family.vae.decoder):
        assert module.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    assert same(run(engine, ROWS), plain)


def test_vae_slicing_decodes_image_by_image_and_changes_no_picture(model_path, plain):
    engine = load(model_path, vae_slicing=True)
    batches = []
    engine._family.vae.decoder.register_forward_pre_hook(
        lambda module, given: batches.append(len(given[0]))
    )
    assert same(run(engine, ROWS), plain)
    assert batches == [1, 1, 1]


def test_vae_tiling_decodes_large_images_in_tiles(model_path, plain):
    engine = load(model_path, vae_tiling=True)
    tiles = []
    engine._family.vae.decoder.register_forward_pre_hook(
        lambda module, given: tiles.append(given[0].shape[-2:])
    )
    made = run(engine, ROWS)
    assert len(tiles) > len(ROWS)
    assert max(max(tile) for tile in tiles) == SIZE // 2
    assert difference(made[0].pixels, plain[0].pixels) <= 1
    assert made[2].pixels.shape == (2 * SIZE, SIZE, 3)


@pytest.fixture
def _torch_tf32():
    """torch's own defaults: products exact, convolutions not."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = (matmul.allow_tf32, cudnn.allow_tf32)
    matmul.allow_tf32, cudnn.allow_tf32 = False, True
    yield
    matmul.allow_tf32, cudnn.allow_tf32 = before


@pytest.mark.usefixtures("_torch_tf32")
@pytest.mark.parametrize("engine", ["stepwise", "pipeline"])
def test_tf32_is_allowed_only_when_asked_for(model_path, engine):
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    for asked in (False, True, False):
        load(model_path, engine=engine, allow_tf32=asked)
        assert (matmul.allow_tf32, cudnn.allow_tf32) == (asked, asked)


@pytest.fixture(scope="module")
def flux_path(tmp_path_factory):
    """A model whose denoiser takes attention backends."""
    return build_tiny_flux(tmp_path_factory.mktemp("flux"))


@pytest.fixture
def _torch_attention():
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry

    before = _AttentionBackendRegistry._active_backend
    yield
    _AttentionBackendRegistry.set_active_backend(before)


@pytest.mark.usefixtures("_torch_attention")
def test_an_attention_backend_reaches_every_layer(flux_path):
    engine = load(flux_path, attention="_native_math")
    processors = denoiser_of(engine._family).attn_processors.values()
    assert {processor._attention_backend.value for processor in processors} == {"_native_math"}


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        ("flash", r"engine.attention=flash cannot be used here: .*Install what it needs"),
        ("nonsense", r"engine.attention=nonsense cannot be used here: .*must be one of"),
    ],
)
def test_an_attention_backend_that_cannot_be_used_is_refused(flux_path, backend, words):
    with pytest.raises(ConfigError, match=words):
        load(flux_path, attention=backend)


@pytest.mark.parametrize(
    "build", [build_tiny_stable_diffusion, build_tiny_sdxl, build_tiny_sd3, build_tiny_pixart]
)
def test_what_files_tell_of_attention_is_what_the_loaded_model_does(tmp_path, build):
    files = describe_model(str(build(tmp_path)))
    refuse_attention("sdpa", files)
    with pytest.raises(OptionRefused, match="takes no attention backend; give engine"):
        refuse_attention("_native_math", files)
    with pytest.raises(OptionRefused, match="of this model takes no attention backend"):
        load(files.path, attention="_native_math")


def test_a_model_that_takes_no_attention_backend_is_refused_one(model_path):
    with pytest.raises(ConfigError, match=r"UNet2DConditionModel .* takes no attention") as caught:
        load(model_path, attention="flash")
    assert "it attends with AttnProcessor2_0" in str(caught.value)
    assert "give engine.attention=sdpa" in str(caught.value)


@pytest.mark.parametrize("key", ["vae_tiling", "vae_slicing"])
def test_a_vae_that_cannot_be_tiled_or_sliced_is_refused_in_words(model_path, key):
    family = family_of(model_path)
    family._pipeline.vae = torch.nn.Identity()
    with pytest.raises(ConfigError, match=f"engine.{key}=true: the Identity of this model has no"):
        apply_options(pipeline_of(family), engine_config("stepwise", **{key: True}))


@pytest.mark.skipif(torch.cuda.is_available(), reason="the refusal of machines without a GPU")
@pytest.mark.parametrize("how", ["model", "sequential", "group"])
def test_offload_without_a_gpu_is_refused(model_path, how):
    with pytest.raises(ConfigError, match=f"engine.offload={how} keeps weights out of a GPU's"):
        load(model_path, offload=how)


def test_what_is_offloaded_is_loaded_beside_the_gpu():
    assert loads_on("off", GPU) == GPU
    assert loads_on("group", GPU) == CPU


@pytest.mark.parametrize(
    ("how", "hooked"),
    [
        ("model", lambda unet: hasattr(unet, "_hf_hook")),
        ("group", lambda unet: unet.conv_in._diffusers_hook.get_hook("group_offloading")),
    ],
)
def test_offloaded_layers_are_hooked_and_make_the_same_pictures(model_path, plain, how, hooked):
    """On a CPU the hooks move nothing; that they are in place is what can be seen here."""
    family = offload(family_of(model_path), how, device=CPU)
    assert hooked(family.unet)
    assert same(run(new_engine(family), ROWS), plain)


def test_single_layers_are_empty_until_they_are_needed(model_path):
    """Accelerate takes cpu:0 for another device than cpu, so that nothing more can run here."""
    family = offload(family_of(model_path), "sequential", device=CPU)
    assert hasattr(family.unet.conv_in, "_hf_hook")
    assert family.unet.conv_in.weight.device.type == "meta"


def test_the_denoiser_leaves_before_texts_are_read(model_path):
    family = offload(family_of(model_path), "model", device=CPU)
    hook = family.unet._hf_hook
    family.embed(["a fox"])
    assert family.unet._hf_hook is not hook


@pytest.mark.parametrize("how", ["sequential", "group"])
def test_layers_that_come_and_go_decode_in_float32(model_path, how):
    family = offload(family_of(model_path, torch.float16), how, device=CPU)
    assert family.vae.dtype == torch.float32
    assert family.unet.dtype == torch.float16
