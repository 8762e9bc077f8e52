"""Rectified flow: noise levels, loss, sampler steps. Names of draws and steps are here, where torch is not needed."""

DRAWS = ("inference", "uniform", "logit_normal", "released")
SDES = ("flow", "dance", "cps")
