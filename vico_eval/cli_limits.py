"""The most that a number on the command line may be: more is a slip of the finger, and would be waited for."""

from typing import Final

DOCUMENTS: Final = 10_000_000
"""Of a task. The largest benchmark has some ten thousand."""

BATCH_SIZE: Final = 4096
PROCESSES: Final = 4096
JOBS: Final = 1024
SEEDS: Final = 1000
ROUNDS: Final = 10_000
REQUESTS: Final = 100_000
"""Of a number in a server's table. Those of a round are made before it begins, about 10 KB each."""

CONCURRENCY: Final = 10_000
TOKENS: Final = 1_000_000
SECONDS: Final = 7 * 24 * 3600
MINUTES: Final = SECONDS // 60
