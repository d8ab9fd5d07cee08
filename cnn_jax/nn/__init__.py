"""Layers that two or more model families share; each takes its rank from the input, channels last."""
