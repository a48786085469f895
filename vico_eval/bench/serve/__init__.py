"""Load on an OpenAI-compatible server: requests of known size, what came back and when, and Table 4 from it."""
