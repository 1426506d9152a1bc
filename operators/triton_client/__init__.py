"""Asking Triton servers for images: one server's connection, many servers' requests, their health.

The client side alone; ``operators.engines.triton`` is the engine that is made of it.
"""
