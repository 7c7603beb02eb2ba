"""Tests of lca_fused, the reference and the experiments."""
