"""Stage II: Pref-GRPO. Names of advantages are here, where torch is not needed."""

ADVANTAGES = ("win_rate", "gdpo", "zscore")
