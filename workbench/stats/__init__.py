"""Intervals, comparisons, the best cells, sample sizes, votes, and the Pareto front: numpy in, numpy out.

The unit of evidence is the prompt (or the group of related prompts), never the row: repeats of one prompt are
averaged first. Everything is vectorised over cells. Two rules keep small samples honest:

* **Pseudo-prompts.** A t interval calls 40 right out of 40 a certainty. So before the interval is taken, a few
  invented prompts are added at the ends of the scale: two at 0 and two at 1 for a mean ("plus four", Agresti and
  Coull 1998), one at -1 and one at +1 for a difference (Bonett and Price 2012), which
  fade out as prompts that differ are seen and are gone at 20. For graded scores, the ends are
  the smallest and largest values any prompt reached in any cell. The invented prompts move the interval only,
  never the estimate that is shown.
* **Exact tests.** p-values come from sign flips of whole prompts (McNemar's exact test when every prompt has one
  0/1 row), not from a normal curve.

`docs/statistics.md` says what each function assumes, and how well its promises held in simulation.
"""

from workbench.resample import median_interval, on_front
from workbench.stats.best import Omnibus, cochran_q, confidence_set
from workbench.stats.front import Volume, front_hypervolume, hypervolume, pareto
from workbench.stats.intervals import (
    Interval,
    difference_interval,
    mean_interval,
    proportion_interval,
)
from workbench.stats.paired import MIN_FLIPS, adjust, equivalent, mcnemar, paired_difference
from workbench.stats.planning import Needed, Way, needed, paired_variance, power, sample_size
from workbench.stats.table import PromptMeans, prompt_means
from workbench.stats.votes import majority_vote, pass_at_k, pass_hat_k

__all__ = [
    "MIN_FLIPS",
    "Interval",
    "Needed",
    "Omnibus",
    "PromptMeans",
    "Volume",
    "Way",
    "adjust",
    "cochran_q",
    "confidence_set",
    "difference_interval",
    "equivalent",
    "front_hypervolume",
    "hypervolume",
    "majority_vote",
    "mcnemar",
    "mean_interval",
    "median_interval",
    "needed",
    "on_front",
    "paired_difference",
    "paired_variance",
    "pareto",
    "pass_at_k",
    "pass_hat_k",
    "power",
    "prompt_means",
    "proportion_interval",
    "sample_size",
]
