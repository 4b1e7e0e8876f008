"""Studies: grids of trainings (groups x seeds) that one file describes, run and then compared.

The trainings, comparisons and reports are commands of ``resnest-d2``. This room orders them,
remembers what is done, and tabulates the results.
"""

from .study_file import StudyPlan, StudyRun, read_study
from .study_runs import run_study, study_record

__all__ = ["StudyPlan", "StudyRun", "read_study", "run_study", "study_record"]
