"""The error tree, grouped by what the caller must do.

::

    ImageMillError
    ├── ConfigError            fix the command or the configuration, run again; nothing was started
    │   ├── UnknownKey         a configuration key that does not exist; names the nearest ones
    │   ├── OptionRefused      an option that a worker cannot honour; start again without it
    │   ├── ModelUnusable      the model is absent, incomplete or cannot be run
    │   │   ├── NoImages       its pipeline answers with something else; start again without it
    │   │   └── ServerUnfit    a Triton server has no such model, or not one that we can use
    │   ├── OutputTaken        the output path belongs to another job
    │   ├── OutputMissing      no job lives at this output path
    │   └── StoreRefused       the output cannot be written, or cannot promise put-if-absent
    ├── InputError             fix the input table, run again; nothing was started
    │   ├── InputChanged       an input file differs from the one that was planned
    │   └── DuplicateIds       input.unique_ids=true and two rows share an id
    ├── RowRejected            record the row as quarantined and go on
    ├── Retryable              give the work back and retry
    │   ├── StoreUnavailable   the store did not answer
    │   ├── StoreDenied        the store refuses what had begun; mend the rights, then go on
    │   ├── BudgetSpent        a cap of budget.* is used; raise it, resume the job
    │   ├── NoWorkers          no worker could start; free resources, resume the job
    │   ├── Preempted          the worker's machine is being taken away; another goes on
    │   ├── EngineHung         the engine did not come back; another worker takes over
    │   ├── ServerLost         no Triton server answers; mend it, resume the job
    │   ├── CoordinatorLost    the run's coordinator died or does not answer; resume the job
    │   ├── JobServerLost      a cluster's job server does not answer; its jobs go on, ask again
    │   └── Cancelled          somebody stopped the job for good; take that back, then go on
    ├── StoreFull              the target cannot take more bytes; stop, keep what is committed
    ├── TakenOver              a later run works on this output; stop, leave it to that one
    ├── LeaseLost              somebody else owns the shard now; stop and discard
    ├── CommitConflict         the write surely did not land: the key exists with other content
    ├── CommitUnknown          the write may have landed: re-read, delete nothing
    └── CorruptOutput          a committed object is missing or is not what its commit says

It knows nothing of Ray, torch or any store: lower errors are mapped to these at the boundary.
"""


class ImageMillError(Exception):
    """Any failure that ImageMill names itself."""


class ConfigError(ImageMillError):
    """The configuration cannot be run."""


class UnknownKey(ConfigError):
    """A configuration key does not exist."""


class OptionRefused(ConfigError):
    """An option, fixed for a job that has begun, that its workers cannot honour."""


class ModelUnusable(ConfigError):
    """The model is absent, incomplete or cannot be run."""


class NoImages(ModelUnusable):
    """The model's pipeline answers with something else than images."""


class ServerUnfit(ModelUnusable):
    """A Triton server cannot be asked for images of this model."""


class OutputTaken(ConfigError):
    """The output path already holds a job."""


class OutputMissing(ConfigError):
    """No job lives at the output path."""


class StoreRefused(ConfigError):
    """The output cannot be written safely."""


class InputError(ImageMillError):
    """The input table cannot be read as prompts."""


class InputChanged(InputError):
    """An input file is not the one that the plan was made from."""


class DuplicateIds(InputError):
    """Two rows carry the same id."""


class RowRejected(ImageMillError):
    """One row cannot become images.

    Args:
        stage: where it was found: read, condition, denoise, decode, check, encode or worker.
        reason: a short stable code, e.g. ``empty_prompt``; reports group by it.
        message: a sentence for people.
    """

    def __init__(self, *, stage: str, reason: str, message: str) -> None:
        super().__init__(message)
        self.stage = stage
        self.reason = reason
        self.message = message

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild_row_rejected, (self.stage, self.reason, self.message))


def _rebuild_row_rejected(stage: str, reason: str, message: str) -> RowRejected:
    return RowRejected(stage=stage, reason=reason, message=message)


class Retryable(ImageMillError):
    """The work may succeed when tried again."""


class StoreUnavailable(Retryable):
    """The store did not answer within its attempts."""


class StoreDenied(Retryable):
    """The store refused in the middle of the work."""


class BudgetSpent(Retryable):
    """The job has cost what it may cost."""


class NoWorkers(Retryable):
    """Too few workers could start in time."""


class Preempted(Retryable):
    """The worker's machine is being taken away."""


class EngineHung(Retryable):
    """The engine did not come back from a tick."""


class ServerLost(Retryable):
    """No Triton server answers. No row is to blame."""


class CoordinatorLost(Retryable):
    """The run's coordinator died or does not answer."""


class JobServerLost(Retryable):
    """The job server of a Ray cluster does not answer any more. Its jobs go on."""


class Cancelled(Retryable):
    """The job was cancelled, and nobody has taken that back."""


class StoreFull(ImageMillError):
    """The target cannot take more bytes."""


class TakenOver(ImageMillError):
    """A later run works on this output."""


class LeaseLost(ImageMillError):
    """The shard belongs to another epoch now."""


class CommitConflict(ImageMillError):
    """The write surely did not land."""


class CommitUnknown(ImageMillError):
    """The write may have landed."""


class CorruptOutput(ImageMillError):
    """A committed object is missing or differs from its commit."""
