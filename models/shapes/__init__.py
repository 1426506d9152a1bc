"""A small text-to-image diffusion model of coloured shapes, trained on pictures it draws."""
