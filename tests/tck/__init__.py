"""The official DSP compatibility kit, run against the product: `python -m tests.tck`."""
