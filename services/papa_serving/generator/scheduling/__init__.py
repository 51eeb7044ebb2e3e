"""Which rows the next denoising step moves on: what waits, what runs, who makes room, and what a row costs."""
