"""Functions on arrays, without parameters and without knowledge of models, data or training."""
