"""What a job server answers, and what becomes of it for a user."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest
import ray
from aiohttp import web
from aiohttp.test_utils import TestServer

from cluster.ray_jobs import RayJobs
from conf.errors import ConfigError, JobServerLost


class JobServer(BaseHTTPRequestHandler):
    """Answers submissions and questions with what ``answers`` and ``told`` hold, one after the
    other; a status of 0 closes the connection without a word."""

    answers: ClassVar[list[tuple[int, str]]] = []
    told: ClassVar[list[tuple[int, str]]] = []
    asked: ClassVar[list[dict[str, object]]] = []

    def do_GET(self) -> None:
        if self.path != "/api/version":
            return self._answer(*self.told.pop(0))
        version = {"version": "4", "ray_version": ray.__version__, "ray_commit": ""}
        self._answer(200, json.dumps({**version, "session_name": "s"}))

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self.asked.append(json.loads(self.rfile.read(length)))
        self._answer(*self.answers.pop(0))

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def _answer(self, status: int, text: str) -> None:
        if not status:
            self.close_connection = True
            return
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())


@pytest.fixture
def address() -> Iterator[str]:
    JobServer.answers, JobServer.told, JobServer.asked = [], [], []
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


def test_a_token_that_is_missing_or_wrong_is_asked_for(address: str) -> None:
    JobServer.answers = [(401, "Unauthorized: Missing authentication token")]
    with pytest.raises(ConfigError) as caught:
        RayJobs(address).submit("imagemill run", name="cats", labels={})
    assert f"{address} asks for a token, and there is none here or it is another" in str(
        caught.value
    )
    assert "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN" in str(caught.value)
    JobServer.told = [(403, "Forbidden: Invalid authentication token")]
    with pytest.raises(ConfigError, match="asks for a token"):
        RayJobs(address).status("cats")


def test_a_server_that_is_gone_while_a_job_is_handed_over_may_have_taken_it(address: str) -> None:
    JobServer.answers = [(0, "")]
    with pytest.raises(JobServerLost) as caught:
        RayJobs(address).submit("imagemill run", name="cats", labels={})
    assert "broke before it said whether it had taken the job" in str(caught.value)
    assert f"look for it with: imagemill logs cats --to {address}" in str(caught.value)


def test_a_server_that_is_gone_or_ill_says_nothing_of_the_job_itself(address: str) -> None:
    JobServer.told = [(0, ""), (500, "Traceback …\nRuntimeError: out of memory")]
    jobs = RayJobs(address)
    for ask, why in ((jobs.status, "aborted"), (jobs.logs, "out of memory")):
        with pytest.raises(JobServerLost) as caught:
            ask("cats")
        assert f"{address} does not tell of job 'cats' any more: " in str(caught.value)
        assert why in str(caught.value)
        assert f"imagemill logs cats --to {address} --follow" in str(caught.value)


def test_a_job_that_a_server_does_not_know_is_told_as_such(address: str) -> None:
    JobServer.told = [(404, "Job cats does not exist")]
    with pytest.raises(ConfigError, match=r"knows no job 'cats': .*Job cats does not exist"):
        RayJobs(address).status("cats")


@pytest.mark.filterwarnings("ignore:ssl=None is deprecated")  # Ray's own client
def test_a_log_that_is_closed_before_the_job_has_ended_is_not_its_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As a head does that is told to go."""

    async def version(_: web.Request) -> web.Response:
        return web.json_response({"version": "4", "ray_version": ray.__version__})

    async def running(_: web.Request) -> web.Response:
        return web.json_response({"type": "SUBMISSION", "status": "RUNNING", "entrypoint": "x"})

    async def closed(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str("one line\n")
        await socket.close()
        return socket

    async def followed() -> list[str]:
        app = web.Application()
        app.router.add_get("/api/version", version)
        app.router.add_get("/api/jobs/cats", running)
        app.router.add_get("/api/jobs/cats/logs/tail", closed)
        async with TestServer(app) as server:
            address = str(server.make_url("/")).rstrip("/")
            heard: list[str] = []

            async def listen() -> None:
                async for lines in RayJobs(address).tail("cats"):
                    heard.append(lines)

            with pytest.raises(JobServerLost, match="closed while the job was RUNNING"):
                await asyncio.to_thread(asyncio.run, listen())
            return heard

    assert asyncio.run(followed()) == ["one line\n"]
    assert caplog.text == "", "Ray's client says nothing of its own"
