"""What the library costs, measured: instructions of its compiled kernels, time, memory.

`python -m benchmarks.sass` counts instructions; it needs triton, but no GPU.
`pytest benchmarks --benchmark-only` measures time and memory against the projection alone.
"""
