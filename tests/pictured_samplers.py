"""The samplers that whole pictures are made with; the others' tables are tested without a model."""

SAMPLERS = (
    "ddim",
    "ddpm",
    "deis",
    "dpm2",
    "dpm2_ancestral",
    "dpmpp_2m",
    "dpmpp_2m_karras",
    "dpmpp_2m_sde",
    "dpmpp_2s_sde",
    "dpmpp_3m",
    "euler",
    "euler_ancestral",
    "heun",
    "lcm",
    "pndm",
    "sa_solver",
    "tcd",
    "unipc",
)
"""For models that were trained on a noise schedule."""
