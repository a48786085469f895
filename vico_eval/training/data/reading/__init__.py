"""Reading conversations from JSONL files, meta files and `datasets`, and recording the state of the sources."""
