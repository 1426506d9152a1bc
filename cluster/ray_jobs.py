"""A Ray cluster's job server: programs that the cluster runs itself, whoever started them is gone.

A thin shell on Ray's own client; it speaks HTTP to the head's dashboard port.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from aiohttp import ClientError
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient

from conf.errors import ConfigError, JobServerLost

_READY_S = 60.0
_LOOK_S = 1.0
_NOT_READY = "No available agent to submit job"
"""What the job server of a cluster says until its head's agent is up."""
_CHATTY = ("ray.dashboard.modules.job.sdk", "ray.dashboard.modules.dashboard_sdk")
"""Loggers of Ray's client, which tell of connections that open and close."""
_NO_JOB = "status code 404"
_NO_ANSWER = (OSError, ClientError)
"""What Ray's client lets through when a connection breaks; those of ``requests`` are OSErrors."""
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
        for chatty in _CHATTY:
            logging.getLogger(chatty).setLevel(logging.WARNING)
        try:
            self._client: Any = JobSubmissionClient(address)
        except AuthenticationError as error:
            raise self._unknown_here() from error
        except (OSError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"no job server of Ray answers at {address}: {str(error).rstrip('.')}. Is the "
                "cluster up, its dashboard on, its port forwarded (kubectl port-forward …:8265)?"
            ) from error

    def submit(self, entrypoint: str, *, name: str, labels: Mapping[str, str]) -> None:
        """Have the cluster run a command line under a name that no job has yet. One that has just
        come up is given time to be ready for jobs.

        Raises:
            ConfigError: it was refused, and why.
            JobServerLost: no answer came; it may have been taken or not.
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
        except AuthenticationError as error:
            raise self._unknown_here() from error
        except _NO_ANSWER as error:
            raise JobServerLost(
                f"the connection to {self._address} broke before it said whether it had taken the "
                f"job: {_last_line(error)}; look for it with: imagemill logs {name} --to "
                f"{self._address}"
            ) from error
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
            JobServerLost: no answer came.
        """
        with self._asking(name):
            status: str = self._client.get_job_status(name).value
        return status

    def logs(self, name: str) -> str:
        """All that the job has said so far.

        Raises:
            ConfigError: there is no such job.
            JobServerLost: no answer came.
        """
        with self._asking(name):
            text: str = self._client.get_job_logs(name)
        return text

    async def tail(self, name: str) -> AsyncIterator[str]:
        """What the job has said and says, until it ends.

        Raises:
            JobServerLost: the connection broke before.
        """
        with self._asking(name):
            async for lines in self._client.tail_job_logs(name):
                yield lines
            status = self._client.get_job_status(name)
            if not status.is_terminal():
                raise RuntimeError(f"the log was closed while the job was {status.value}")

    @contextmanager
    def _asking(self, name: str) -> Iterator[None]:
        try:
            yield
        except AuthenticationError as error:
            raise self._unknown_here() from error
        except (*_NO_ANSWER, RuntimeError) as error:
            why = _last_line(error)
            if _NO_JOB in str(error):
                raise ConfigError(
                    f"{self._address} knows no job '{name}': {why}; 'imagemill submit' told "
                    "its name"
                ) from error
            raise JobServerLost(
                f"{self._address} does not tell of job '{name}' any more: {why}; what becomes of "
                f"it does not depend on that; ask again with: imagemill logs {name} --to "
                f"{self._address} --follow"
            ) from error

    def _unknown_here(self) -> ConfigError:
        return ConfigError(
            f"{self._address} asks for a token, and there is none here or it is another cluster's; "
            "nothing was done; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN (of a RayCluster on "
            "Kubernetes: the key auth_token of the secret of its name)"
        )


def _last_line(error: Exception) -> str:
    """Ray's server answers with a traceback; the reason stands at its end."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" .'\"")]
    return lines[-1] if lines else type(error).__name__
