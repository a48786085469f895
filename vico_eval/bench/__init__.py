"""Measurements of speed, memory and operations: what a method costs and what it saves."""
