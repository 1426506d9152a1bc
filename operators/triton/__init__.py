"""A model of ImageMill served by Triton Inference Server: what is exported and what runs there.

The server side alone; it must import without pyarrow and with numpy 1.26.
"""
