"""From files to conversations: JSONL, meta files and `datasets`, and what they were when a run began."""
