"""How answers end: at the limit on new tokens, which truncates them, or in a phrase that repeats itself."""
