"""What the scripts of `benchmarks/` measure, a module each, and the READMEs that show their records."""
