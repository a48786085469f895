"""Load tests of OpenAI-compatible servers: requests of known size, timed answers, and Table 4 from them."""
