"""What the library costs, measured: instructions of its compiled kernels, and time.

`python -m benchmarks.sass` counts instructions; it needs triton, but no GPU.
"""
