"""What the use of data costs: prices as an agreement has them, budgets, and the invoice. Pure."""
