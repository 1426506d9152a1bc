"""A model for Triton's python backend that does what the prompt says. Run by the server, not by us.

``crash`` kills its process, ``fail`` is a row's own failure, ``odd`` fails as no row of ours does,
``hang`` goes on until it is cancelled, ``until PATH`` until there is such a file, ``wait S`` takes
so long. ``place`` tells as its truncated tokens how many requests came before it. ``late PATH``
makes such a file and is kept, cancelled or not, until the picture of an ``after late`` is sent,
whose request ends only after that. The rest becomes a picture.
"""

import json
import os
import signal
import time

import numpy as np
import triton_python_backend_utils as backend

FAILURE = {"stage": "check", "reason": "nan_image", "message": "no numbers", "gpu_seconds": 0.025}


class TritonPythonModel:
    places = 0

    def initialize(self, arguments):
        parameters = json.loads(arguments["model_config"])["parameters"]
        self._revision = parameters["imagemill_model_revision"]["string_value"]
        config = json.loads(arguments["model_config"])
        self._continuous = backend.using_decoupled_model_transaction_policy(config)
        self._late = []

    def execute(self, requests):
        if not self._continuous:
            return [self._response(request, len(requests)) for request in requests]
        for request in requests:
            self._send(request, len(requests))
        return None

    def _send(self, request, rows):
        sender, final = request.get_response_sender(), backend.TRITONSERVER_RESPONSE_COMPLETE_FINAL
        response, prompt = self._response(request, rows), self._prompt(request)
        if prompt.startswith("late "):
            open(prompt[5:], "w").close()
            self._late.append((sender, response))
            return
        if prompt == "after late":
            sender.send(response)
            for late, kept in self._late:
                late.send(kept, flags=final)
            self._late = []
            sender.send(flags=final)
            return
        sender.send(response, flags=final)

    def _prompt(self, request):
        found = backend.get_input_tensor_by_name(request, "prompt").as_numpy()
        return found.reshape(-1)[0].decode()

    def _response(self, request, rows):
        def value(name):
            return backend.get_input_tensor_by_name(request, name).as_numpy().reshape(-1)[0]

        prompt = self._prompt(request)
        if prompt == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        if prompt == "fail":
            return _error(json.dumps(FAILURE | {"revision": self._revision}))
        if prompt == "odd":
            return _error("CUDA error: an illegal memory access was encountered")
        while prompt == "hang" and not request.is_cancelled():
            time.sleep(0.01)
        if prompt.startswith("wait "):
            time.sleep(float(prompt.split()[1]))
        if prompt.startswith("until "):
            _wait_for(prompt[6:])
        self.places += 1
        random = np.random.default_rng(int(value("seed")))
        place = self.places if prompt == "place" else 0
        shape = (1, int(value("height")), int(value("width")), 3)
        outputs = {
            "image": random.integers(0, 256, shape, dtype=np.uint8),
            "gpu_seconds": np.array([[0.001]]),
            "batch_rows": np.array([[rows]], dtype=np.int32),
            "truncated_tokens": np.array([[place]], dtype=np.int32),
            "revision": np.array([[self._revision.encode()]], dtype=np.object_),
        }
        return backend.InferenceResponse([backend.Tensor(*one) for one in outputs.items()])


def _wait_for(path):
    open(path + ".reached", "w").close()
    while not os.path.exists(path):
        time.sleep(0.005)


def _error(message):
    return backend.InferenceResponse(error=backend.TritonError(message))
