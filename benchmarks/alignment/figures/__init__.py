"""The paper's figures on our axes, one script each, drawn from the records.

`python -m benchmarks.alignment.figures.NAME`:

| script | figures of arXiv 2607.00486 |
|---|---|
| success | 5, 23: success over interaction steps, mean and deviation |
| sheets | 3, 4, 16: samples before and after, several preference sets |
| jpeg | 6 to 8, 11, 21: the fine-grained objective, graded feedback |
| ablations | 9, 10, 17 to 20: without L^PAE, without L^QPDE, L^p only, L^np only |
| k_sweep | 22: K |
| epapa | 25: PAPA against EPAPA |
| latent | none: learning on the latents of a text backbone |
| questions | none: flipped labels, labels a step, drift, active selection, which the paper leaves open |
| settings | none: what fixed the baselines' rates and our own update |
"""
