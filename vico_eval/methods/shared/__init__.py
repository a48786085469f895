"""What several methods share: budgets, shares measured by earlier runs, and random choice."""
