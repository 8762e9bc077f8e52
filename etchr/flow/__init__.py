"""Rectified flow: noise levels, loss, sampler steps. The names of the draws are here, where torch is not needed."""

DRAWS = ("inference", "uniform", "logit_normal", "released")
