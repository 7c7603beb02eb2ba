"""Finetuning on one's own photos."""
