"""How the embedded reader's confidence is made: `python -m evaluation.calibrate` fits `etchr/nano/confidence.yaml`.

The reader measures a few features of an edit (`etchr/nano/skills.py`); here they are weighed. Edits of validation
questions, never of test ones, are drawn by the base editor and by adapters over it, asked and told, at few steps too;
more are the ground truth, whole and spoiled. The reader reads all of them, and a logistic regression with weights that
may have one sign only says from its features whether it read the right answer. A report says how well that holds on
questions that were left out of the fit, and what it pays: Edit-Verify-Reason beside always using the edit.
"""
