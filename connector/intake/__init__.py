"""The consumer's half of the data plane: a download is asked for, checked as it comes, receipted, and put where it belongs."""
