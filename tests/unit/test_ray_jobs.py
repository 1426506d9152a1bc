"""What a job server answers, and what becomes of it for a user."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest
import ray

from cluster.ray_jobs import RayJobs
from conf.errors import ConfigError


class JobServer(BaseHTTPRequestHandler):
    """Answers submissions with what ``answers`` holds, one after the other."""

    answers: ClassVar[list[tuple[int, str]]] = []
    asked: ClassVar[list[dict[str, object]]] = []

    def do_GET(self) -> None:
        version = {"version": "4", "ray_version": ray.__version__, "ray_commit": ""}
        self._answer(200, json.dumps({**version, "session_name": "s"}))

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self.asked.append(json.loads(self.rfile.read(length)))
        self._answer(*self.answers.pop(0))

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def _answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())


@pytest.fixture
def address() -> Iterator[str]:
    JobServer.answers, JobServer.asked = [], []
    server = ThreadingHTTPServer(("127.0.0.1", 0), JobServer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_cluster_that_has_just_come_up_is_asked_again(address: str) -> None:
    accepted = json.dumps({"job_id": "cats", "submission_id": "cats"})
    not_yet = "No available agent to submit job, please try again later."
    JobServer.answers = [(500, not_yet), (200, accepted)]
    RayJobs(address).submit("imagemill run", name="cats", labels={"a": "b"})
    assert len(JobServer.asked) == 2
    assert JobServer.asked[1]["entrypoint"] == "imagemill run"
    assert JobServer.asked[1]["submission_id"] == "cats"
    assert JobServer.asked[1]["metadata"] == {"a": "b"}


def test_a_job_that_is_refused_is_told_once_with_the_servers_last_word(address: str) -> None:
    JobServer.answers = [(500, "Traceback …\nValueError: Job with submission_id cats exists")]
    with pytest.raises(ConfigError) as caught:
        RayJobs(address).submit("imagemill run", name="cats", labels={})
    assert f"{address} refused the job: ValueError: Job with submission_id cats exists" in str(
        caught.value
    )
    assert len(JobServer.asked) == 1
