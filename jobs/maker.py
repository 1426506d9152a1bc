"""What makes a job's images: the very model, and the engine that suits it. Settled once a job."""

from __future__ import annotations

from dataclasses import dataclass, replace

from conf.errors import ConfigError, ServerLost, ServerUnfit
from conf.schema import RunConfig
from jobs.figures import is_simulated
from operators.attention_choice import refuse_attention
from operators.engine_choice import choose_engine
from operators.families import READ_IN_PIECES
from operators.model_source import find_model, pin_model
from operators.row_defaults import row_defaults


@dataclass(frozen=True, slots=True, kw_only=True)
class Maker:
    """``config`` names an engine, never ``auto``, and the hub's models by commit."""

    config: RunConfig
    model_revision: str
    why: str

    @property
    def engine_line(self) -> str:
        """Which engine, and why."""
        return f"{self.config.engine.name}: {self.why}"


def settle(config: RunConfig) -> Maker:
    """Find the model, checking its files, and choose the engine.

    Raises:
        ModelUnusable: the model cannot be had or run.
        ConfigError: the engine cannot do what the configuration asks of every row.
    """
    if config.engine.name == "simulated":
        return Maker(config=config, model_revision="simulated", why="SIMULATED, no model runs")
    if config.engine.name == "triton":
        return _through_triton(config)
    model = pin_model(config.model)
    files = find_model(model)
    refuse_attention(config.engine.attention, files)
    defaults = row_defaults(config)
    choice = choose_engine(config.engine.name, files, defaults.sampler)
    if choice.name == "pipeline":
        _refuse_compile(config, choice.why)
        # late: the signature of a pipeline is diffusers', which takes seconds to import
        from operators.pipeline_call import check_defaults

        check_defaults(files, defaults)
    if choice.name != "stepwise" or files.pipeline_class not in READ_IN_PIECES:
        _refuse_pieces(config, f"a {files.pipeline_class} on engine {choice.name}")
    return Maker(
        config=replace(config, model=model, engine=replace(config.engine, name=choice.name)),
        model_revision=files.revision,
        why=choice.why,
    )


def _through_triton(config: RunConfig) -> Maker:
    """Ask the servers, which have the model; ``model`` says no more than the rows' defaults."""
    try:
        # late: gRPC takes time to import, and tritonclient is an extra
        from operators.engines.triton import look
    except ImportError as error:
        raise ConfigError(
            f"engine=triton needs the package tritonclient ({error}); install it with: "
            "pip install 'imagemill[triton]'"
        ) from error
    row_defaults(config)
    try:
        found = look(config.triton, config.model, priority=config.job.priority)
    except ServerLost as error:
        raise ServerUnfit(str(error)) from error
    if found.simulated and not is_simulated(config):
        # whatever names the images' model says so
        name = f"simulated:{config.model.name}"
        config = replace(config, model=replace(config.model, name=name))
    return Maker(
        config=config,
        model_revision=found.revision,
        why=f"{'SIMULATED ' if found.simulated else ''}{found.model} on {config.triton.url}, "
        f"{found.mode}, batches of up to {found.max_batch}, {found.instances} at a time on a "
        "server",
    )


def _refuse_compile(config: RunConfig, why: str) -> None:
    if config.engine.compile in ("regional", "full"):
        raise ConfigError(
            f"engine.compile={config.engine.compile} is for the stepwise engine, but the pipeline "
            f"engine runs ({why}); it compiles nothing. Give engine.compile=off"
        )


def _refuse_pieces(config: RunConfig, maker: str) -> None:
    if config.engine.prompt_pieces > 1:
        raise ConfigError(
            f"engine.prompt_pieces={config.engine.prompt_pieces} is for the stepwise engine with "
            f"{' or '.join(READ_IN_PIECES)}, but this job's images are made by {maker}, which "
            "reads no prompt in pieces. Give engine.prompt_pieces=1"
        )


def revision_now(config: RunConfig) -> str:
    """The revision of a job's model as it lies there now.

    Raises:
        ModelUnusable: it cannot be had.
        ConfigError: Triton servers cannot be asked from here.
    """
    if config.engine.name == "simulated":
        return "simulated"
    if config.engine.name == "triton":
        return _through_triton(config).model_revision
    return find_model(config.model).revision
