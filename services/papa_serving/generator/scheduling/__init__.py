"""Decides which rows take the next denoising step: the queue, fairness, displacement, and the cost of rows."""
