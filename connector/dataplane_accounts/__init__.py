"""What an account of a transfer is made of: what is on its way, over all transfers of an agreement too, and the time in which data flow."""
