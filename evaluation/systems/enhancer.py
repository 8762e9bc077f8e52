"""Edit-Verify-Reason with an instruction that the model writes, for an editor that knows no questions.

The paper's name for `evr` with `prompt=enhanced`, which the options see to.
"""

from evaluation.systems.base import Kind
from evaluation.systems.evr import KIND as EVR

KIND = Kind(
    "as evr; the model writes the editor's instruction from the question", EVR.run, EVR.calls, prompt="enhanced"
)
