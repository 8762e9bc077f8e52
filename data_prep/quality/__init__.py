"""The quality report of a data set: what is in it, which pictures repeat, and what training shares with evaluation."""
