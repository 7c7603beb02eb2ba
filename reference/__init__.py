"""The paper in plain PyTorch: the oracle everything else is checked against. Never optimised."""
