"""Pretrained parameters in, exported models out."""
