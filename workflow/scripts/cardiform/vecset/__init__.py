"""The VecSet autoencoder."""
