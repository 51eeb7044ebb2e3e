"""PAPA: online personalised preference alignment of a diffusion model, as a library.

Everything a researcher needs without the service: the noise schedule, the denoiser wrapper, slot LoRA,
the objective, the samplers, one `update`, and the measures of alignment (arXiv 2607.00486).
"""
