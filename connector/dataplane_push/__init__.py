"""The provider's half of transfers that it pushes: it dials, and the receipts come back as answers."""
