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
SHIFTED_FLOW_SAMPLERS = (
    "flow_match_euler",
    "flow_match_euler_karras",
    "deis",
    "dpmpp_2m",
    "dpmpp_3s",
    "unipc",
)
"""For flow models, also those that shift noise levels with the image's size; without noise."""
FLOW_SAMPLERS = (*SHIFTED_FLOW_SAMPLERS, "flow_match_heun")
"""For flow models that shift them all alike."""
NOISY_FLOW_SAMPLERS = ("dpmpp_2m_sde", "flow_match_euler_stochastic", "flow_match_lcm")
"""For flow models; noise is the row's own, where a pipeline draws it from a global generator."""
