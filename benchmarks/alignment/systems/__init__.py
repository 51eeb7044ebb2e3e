"""One file per system; `base.System` is what a run needs of each."""
