"""How images are made: request -> conditioning -> denoise -> decode -> encode.

Owns the engines. Knows nothing of Ray, of the store or of the job.
"""
