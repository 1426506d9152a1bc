"""A Ray cluster's job server: programs that the cluster runs itself, whoever started them is gone.

A thin shell on Ray's own client; it speaks HTTP to the head's dashboard port.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, NoReturn

from ray.job_submission import JobStatus, JobSubmissionClient

from conf.errors import ConfigError

_READY_S = 60.0
_LOOK_S = 1.0
_NOT_READY = "No available agent to submit job"
"""What the job server of a cluster says until its head's agent is up."""
ENDED = frozenset(status.value for status in JobStatus if status.is_terminal())


class RayJobs:
    """The job server at an address such as http://head:8265.

    Raises:
        ConfigError: nobody answers there, or no job server of Ray.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        if not address.startswith(("http://", "https://")):
            raise ConfigError(
                f"--to {address} is no job server; expected the URL of the head's dashboard, such "
                "as http://head:8265"
            )
        try:
            self._client: Any = JobSubmissionClient(address)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"no job server of Ray answers at {address}: {error}. Is the cluster up, its "
                "dashboard on, and its port forwarded (kubectl port-forward …:8265)?"
            ) from error

    def submit(self, entrypoint: str, *, name: str, labels: Mapping[str, str]) -> None:
        """Have the cluster run a command line under a name that no job has yet. One that has just
        come up is given time to be ready for jobs.

        Raises:
            ConfigError: it was refused, and why.
        """
        deadline_s = time.monotonic() + _READY_S
        while not self._took(entrypoint, name, labels, asking=time.monotonic() < deadline_s):
            time.sleep(_LOOK_S)

    def _took(self, entrypoint: str, name: str, labels: Mapping[str, str], *, asking: bool) -> bool:
        """Whether the job was taken; false, while ``asking``, if the cluster is not ready."""
        try:
            self._client.submit_job(
                entrypoint=entrypoint, submission_id=name, metadata=dict(labels)
            )
        except RuntimeError as error:
            if asking and _NOT_READY in str(error):
                return False
            why = _last_line(error)
            raise ConfigError(f"{self._address} refused the job: {why}") from error
        return True

    def status(self, name: str) -> str:
        """PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED.

        Raises:
            ConfigError: there is no such job.
        """
        try:
            status: str = self._client.get_job_status(name).value
        except RuntimeError as error:
            self._unknown(name, error)
        return status

    def logs(self, name: str) -> str:
        """All that the job has said so far.

        Raises:
            ConfigError: there is no such job.
        """
        try:
            text: str = self._client.get_job_logs(name)
        except RuntimeError as error:
            self._unknown(name, error)
        return text

    def tail(self, name: str) -> AsyncIterator[str]:
        """What the job has said and says, until it ends."""
        lines: AsyncIterator[str] = self._client.tail_job_logs(name)
        return lines

    def _unknown(self, name: str, error: Exception) -> NoReturn:
        raise ConfigError(
            f"{self._address} knows no job '{name}': {_last_line(error)}; 'imagemill submit' told "
            "its name"
        ) from error


def _last_line(error: Exception) -> str:
    """Ray's server answers with a traceback; the reason stands at its end."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" .'\"")]
    return lines[-1] if lines else type(error).__name__
