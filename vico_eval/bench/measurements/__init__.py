"""The measurements behind the scripts in `benchmarks/`, one module each, and the READMEs of their records."""
