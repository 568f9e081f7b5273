"""What is counted and paid for under agreements: what can be measured, what was used, and the invoice."""
