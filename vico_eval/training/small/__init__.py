"""The built-in small models: their recipes, their data and what is trained in them."""
