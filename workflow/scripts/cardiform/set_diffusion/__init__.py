"""Diffusion of a VecSet's latents."""
