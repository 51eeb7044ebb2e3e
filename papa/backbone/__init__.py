"""Backbones: the shipped ones, and the command that trains them."""
