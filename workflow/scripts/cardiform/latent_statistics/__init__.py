"""How the hearts of a cohort vary, by the latents of a VecSet."""
