"""The ledger: the one sequencer that numbers facts into the participant's log, proofs out of it, and witnesses on both sides."""
