"""The provider's half of transfers without an end: from a live source, through stages, into a content log and a bounded spool."""
