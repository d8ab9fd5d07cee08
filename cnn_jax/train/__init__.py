"""Training: the step and its transformations, the loop, and everything a run directory holds."""
