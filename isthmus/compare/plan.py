"""Which jobs a study has, and when each may begin: pictures first, then earlier stages, rates, the judged runs.

A rate that cannot be trained with (a loss that is not finite) is out; an arm is lost only when all its rates are. A
rate at which all visual tokens of an image become alike is chosen only when the arm has no other.
"""

from pathlib import Path

from isthmus.compare.costs import answering_work, training_work
from isthmus.compare.jobs import (
    Job,
    before_job,
    chosen_rate,
    features_jobs,
    final_job,
    levels_job,
    tune_job,
)
from isthmus.compare.schedule import Board
from isthmus.compare.study import TEXT_ONLY, Study


class StudyPlan:
    """Gives the jobs that may begin, each once."""

    def __init__(self, study: Study, root: Path, *, workers: int) -> None:
        self.study = study
        self.root = root
        self.stages = study.stages()
        self.fingerprints = {arm: stage.model.fingerprint() for arm, stage in self.stages.items()}
        self.first: list[Job] = [levels_job(root, study)]
        self.rates: dict[str, float] = {}
        self.lost: dict[str, str] = {}
        self._begun = self._prepared = False
        self._tuning: dict[str, list[Job]] = {}
        self._final: dict[str, list[Job]] = {}
        self._work = {arm: self._full_work(arm) for arm in self.stages}
        self._before = self._before_jobs()
        if not all(self._finished(arm) for arm in self.stages):
            self.first = [*features_jobs(root, study, workers), *self.first]

    def __call__(self, board: Board) -> list[Job]:
        """The next jobs."""
        if not self._begun:
            self._begun = True
            return self.first
        if not all(board.ended(job) for job in self.first if job.kind == "features"):
            return []
        if not self._prepared:
            self._prepared = True
            if earlier := self._earlier():
                return earlier
        new: list[Job] = []
        for arm in self.stages:
            before = self._before[arm].values()
            if any(job in board.failed for job in before):
                self.lost[arm] = "a stage before it could not be trained"
                self._tuning[arm] = self._final[arm] = []
            if not all(board.ended(job) for job in before):
                continue
            if arm not in self._tuning:
                self._tuning[arm] = self._tune_jobs(arm)
                new += self._tuning[arm]
            if arm not in self._final and all(board.ended(job) for job in self._tuning[arm]):
                self._final[arm] = self._final_jobs(arm, board)
                new += self._final[arm]
        return new

    def work_to_come(self) -> float:
        """FLOPs of the judged runs that no job was made for yet, and of rates before pictures are encoded."""
        study = self.study
        earlier = 0.0 if self._prepared else sum(job.work for job in self._earlier())
        tuning = sum(
            self._work[arm] * study.tune_fraction * len(study.rates_of(arm)) * len(study.tune_seeds)
            for arm in self.stages
            if arm not in self._tuning and len(study.rates_of(arm)) > 1
        )
        final = sum(self._work[arm] * len(study.seeds) for arm in self.stages if arm not in self._final)
        return float(earlier + tuning + final)

    def failures(self, board: Board) -> list[str]:
        """What went wrong, in sentences."""
        said = [f"{arm} could not be judged: {why}." for arm, why in self.lost.items()]
        said += [f"{job.name} failed: {_first_line(why)}." for job, why in board.failed.items()]
        return said

    def _full_work(self, arm: str) -> float:
        study = self.study
        questions = sum(study.items_of(task) for task in study.tasks)
        questions += len(study.headline) * (study.watch_items + (0 if arm == TEXT_ONLY else 2 * study.control_items))
        return training_work(self.stages[arm]) + answering_work(self.stages[arm], questions)

    def _before_jobs(self) -> dict[str, dict[int, Job]]:
        """For every arm and seed the job its runs start from; arms with the same stages before them share it."""
        study = self.study
        made: dict[Path, Job] = {}
        found: dict[str, dict[int, Job]] = {arm: {} for arm in self.stages}
        for arm in self.stages:
            for seed in (*(study.tune_seeds if len(study.rates_of(arm)) > 1 else ()), *study.seeds):
                if (job := before_job(self.root, study, arm, seed, self._work[arm])) is not None:
                    found[arm][seed] = made.setdefault(job.folder, job)
        return found

    def _earlier(self) -> list[Job]:
        return list(dict.fromkeys(job for jobs in self._before.values() for job in jobs.values()))

    def _tune_jobs(self, arm: str) -> list[Job]:
        study = self.study
        rates = study.rates_of(arm)
        if len(rates) == 1:
            return []
        before = self._before[arm]
        return [
            tune_job(self.root, study, arm, rate, seed, self.fingerprints[arm], self._work[arm], before.get(seed))
            for rate in rates
            for seed in study.tune_seeds
        ]

    def _finished(self, arm: str) -> bool:
        """Whether the folder holds all of an arm's results, so that no picture need be encoded for it."""
        board = Board()
        board.add(self._tune_jobs(arm))
        self._tuning[arm] = list(board.done)
        finished = not board.waiting and all(job.done for job in self._final_jobs(arm, board))
        del self._tuning[arm]
        return finished and self.rates.pop(arm, None) is not None

    def _final_jobs(self, arm: str, board: Board) -> list[Job]:
        study = self.study
        rates = study.rates_of(arm)
        broken = {job.rate for job in self._tuning[arm] if job in board.failed}
        tried = [board.done[job] for job in self._tuning[arm] if job in board.done and job.rate not in broken]
        rate = rates[0] if len(rates) == 1 else chosen_rate(tried)
        if rate is None:
            self.lost[arm] = "no learning rate could be trained with"
            return []
        self.rates[arm] = rate
        return [
            final_job(
                self.root, study, arm, rate, seed, self.fingerprints[arm], self._work[arm], self._before[arm].get(seed)
            )
            for seed in study.seeds
        ]


def _first_line(text: str) -> str:
    return text.splitlines()[0].rstrip(".") if text else "no reason was given"
