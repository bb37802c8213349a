"""The sparse VQ-VAE."""
