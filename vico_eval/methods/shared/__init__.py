"""What several methods use: budgets, shares that earlier runs measured, random choice."""
