"""How the local routing rule is made: `python -m data_prep.routing` fits `configs/router/words.yaml`.

The split was fixed before the first fit. *Development*, all that the rule, its strength and its confidence come from:
questions of the procedural tasks' training scenes; the wordings of the generated sources (mazes, lakes, jigsaws,
DL3DV); `questions.yaml`, written for this; the reasoning questions of CharXiv's test figures, whose answers are not
published; the questions of ViewSpatial-Bench of all types but Person perspective - Relative Direction. *Reported*, and
never fitted on: the procedural tasks' test scenes, ViewSpatial's Person perspective - Relative Direction (the paper's
column), CharXiv's validation questions, ChartQA's test questions (`python -m evaluation route`).

Three things to know of the reported numbers. The procedural tasks have one wording each, the same in both splits. A
few questions of each ViewSpatial type and of CharXiv's validation set had been seen by the author of `questions.yaml`;
it says nothing about hands, which a fifth of Person perspective - Relative Direction asks for. And the list was changed
once after the first numbers: questions of MMVP, looked at then, say "in the image" so often that frames were added. So
MMVP counts as development, though nothing of it is in the fit.
"""
