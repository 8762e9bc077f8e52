"""Stage II: Pref-GRPO. The names of the advantages are here, where torch is not needed."""

ADVANTAGES = ("win_rate", "gdpo", "zscore")
