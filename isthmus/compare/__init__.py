"""Many runs, one verdict: a study trains arms under equal conditions and reports what can be told apart."""

from isthmus.compare.run import run_study
from isthmus.compare.study import Arm, Factor, Study

__all__ = ["Arm", "Factor", "Study", "run_study"]
