"""Stage II: Pref-GRPO. Names of objectives and advantages are here, where torch is not needed."""

OBJECTIVES = ("grpo", "nft")
ADVANTAGES = ("win_rate", "gdpo", "zscore")
