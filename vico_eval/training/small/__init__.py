"""The built-in small models: their recipes, data, architecture and training."""
