"""Pretrained backbones, pooling heads and the classifiers made of them."""
