"""Latent diffusion of whole hearts."""
