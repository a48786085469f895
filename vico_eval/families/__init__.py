"""Families of checkpoints: what loads one, shows it pictures and runs its decoder. Imports no method."""
