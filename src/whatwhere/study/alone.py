"""A trial by one process at a time: engines may run it twice where they lost sight of a worker."""

from whatwhere.study.locks import locked
from whatwhere.study.trial import Trial, run_trial


def run_alone(trial: Trial) -> None:
    """Run or resume a trial to its record.

    Where another process is at it, this one waits until that one ends. Then the record counts that
    it left, or, where it was killed, the trial goes on from its last checkpoint.
    """
    if trial.done():
        return
    trial.folder.mkdir(parents=True, exist_ok=True)
    with locked(trial.folder / ".lock", timeout=-1):
        if not trial.done():
            (trial.folder / "result.json").unlink(missing_ok=True)  # of a failure
            run_trial(trial)
