"""The files a training writes: resumable checkpoints, and files that are written completely or not at all."""
