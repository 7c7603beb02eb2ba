"""The default data: retail-like products drawn and photographed by a program, nothing to download.

Families of products share pack, colours and brand, and their members differ in small local details
alone, so that telling them apart is fine-grained. Four scenarios mirror the data sets of the paper
and what its backbone was pretrained on.
"""
