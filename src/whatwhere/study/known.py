"""What a study's folder already holds: its settings, which must be those asked for."""

from pathlib import Path
from typing import Any

from whatwhere.files import read_json
from whatwhere.study.data import StudyData
from whatwhere.study.settings import StudyError, StudySettings, changes

STUDY_KEYS = ("settings", "threads", "fingerprint", "variants")


def known_study(settings: StudySettings, run: Path) -> dict[str, Any] | None:
    """The study's record; None where the folder is new.

    Raises:
        StudyError: the record is damaged, or of other settings.
    """
    path = run / "study.json"
    try:
        known: Any = read_json(path)
    except ValueError as error:
        raise StudyError(f"{error}. {_restore(path)}") from error
    if known is None:
        if any(run.glob("trials/*/result.json")):
            raise StudyError(
                f"expected {path} beside the records of trials, got none. {_restore(path)}"
            )
        return None
    if not isinstance(known, dict) or not set(STUDY_KEYS) <= set(known):
        raise StudyError(
            f"expected a study's settings in {path}, got something else. {_restore(path)}"
        )
    # What a study from before a setting was there doesn't say is that setting's default.
    before = {**StudySettings(settings.data).fixed(), **known["settings"]}
    differences = changes(before, settings.fixed())
    if differences:
        raise StudyError(
            f"{run} holds a study with other settings: {'; '.join(differences)}. Seeds and "
            "variants can be added to a study; for other settings choose another --out"
        )
    return known


def _restore(path: Path) -> str:
    return (
        f"Put {path.name} back from a copy, or choose another --out: without it nobody knows with "
        "what settings the trials ran, and they stay as they are"
    )


def check_data(known: dict[str, Any] | None, study_data: StudyData, run: Path) -> None:
    """Refuse to go on with other data than the study began with."""
    if known is not None and known["fingerprint"] != study_data.fingerprint:
        raise StudyError(
            f"the data have changed since the study in {run} began (fingerprint "
            f"{known['fingerprint']}, now {study_data.fingerprint}); choose another --out"
        )
