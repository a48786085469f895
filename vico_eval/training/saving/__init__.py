"""What a training leaves on the disk: checkpoints to go on from, and whole files."""
