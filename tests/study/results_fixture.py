"""A finished study to read: realistic results of any variants and seeds, without training."""

import json
import math
import random

ROLES = {"plain": "baseline", "cbam": "attention", "se": "attention", "wider": "control"}
GAINS = {"plain": 0.0, "cbam": 0.031, "se": 0.012, "wider": 0.008}
RATIOS = {"plain": 1.0, "cbam": 1.09, "se": 1.04, "wider": 1.06}
DESCRIPTIONS = {
    "plain": "resnet18, no gates",
    "cbam": "channel then spatial gates in every block",
    "se": "channel gates on the mean in every block",
    "wider": "no gates, wider until it has as many parameters as cbam",
}
KINDS = {"plain": (), "cbam": ("what", "where"), "se": ("what",), "wider": ()}


def build_results(*, variants=tuple(ROLES), seeds=(0, 1, 2), truth=True, depth=4, fast=False):
    """Results of a study in which cbam helps, se is not shown to and the control helps little."""
    return {
        "whatwhere": "0.1.0",
        "created": "2026-03-02T10:11:12+00:00",
        "command": "whatwhere compare digits --attention cbam --attention se --out runs/demo",
        "name": "digits in clutter",
        "fast": fast,
        "versions": {"python": "3.12.4", "torch": "2.14.1", "lightning": "2.6.6"},
        "machine": {
            "processor": "x86_64, made up",
            "cores": 2,
            "accelerator": None,
            "trials_on": {"a": 12},
        },
        "settings": {
            "backbone": "resnet18",
            "epochs": 12,
            "batch_size": 64,
            "learning_rate": 0.002,
            "start": "identity",
            "seeds": list(seeds),
            "variants": list(variants),
            "control": "parameters" if "wider" in variants else "none",
        },
        "data": {
            "name": "digits in clutter",
            "source": "digits",
            "classes": [str(digit) for digit in range(10)],
            "shape": [1, 40, 40],
            "counts": {"train": 3500, "val": 500, "test": 1000},
            "skipped": [],
            "truth": ["where"] if truth else [],
            "chance_accuracy": 0.104,
        },
        "variants": [_variant(name) for name in variants],
        "trials": [
            _trial(name, seed, truth=truth, depth=depth) for name in variants for seed in seeds
        ],
        "comparisons": [],
        "verdict": "",
    }


def write_results(run, results):
    run.mkdir(parents=True, exist_ok=True)
    (run / "results.json").write_text(json.dumps(results), encoding="utf-8")
    return run


def fail(results, variant, seed, *, status="diverged", reason="the loss was NaN in epoch 3"):
    for trial in results["trials"]:
        if (trial["variant"], trial["seed"]) == (variant, seed):
            trial.update(status=status, reason=reason, test=None, gates=[], picture=None)
            trial["epochs"] = trial["epochs"][:3]
            if trial["epochs"]:
                trial["epochs"][-1].update(train_loss=math.nan, val_loss=None)
    return results


def set_accuracies(results, variant, values):
    """Give the trials of a variant these test accuracies, in points."""
    trials = [trial for trial in results["trials"] if trial["variant"] == variant]
    for trial, value in zip(trials, values, strict=True):
        trial["test"]["accuracy"] = value / 100
    return results


def _variant(name):
    parameters = {"plain": 175_258, "cbam": 177_430, "se": 176_914, "wider": 177_502}[name]
    ratio = RATIOS[name]
    return {
        "name": name,
        "role": ROLES[name],
        "description": DESCRIPTIONS[name],
        "sites": len(KINDS[name]) * 4,
        "parameters": parameters,
        "macs": round(16_700_000 * (1 + (parameters / 175_258 - 1) * 2)),
        "latency_ms": {"median": 3.2 * ratio, "low": 3.1 * ratio, "high": 3.4 * ratio},
        "latency_ratio": {"median": ratio, "low": ratio - 0.02, "high": ratio + 0.03},
        "training_memory_mb": 61.0 + 9 * len(KINDS[name]),
    }


def _trial(name, seed, *, truth, depth):
    luck = random.Random(f"{name} {seed}")
    accuracy = 0.902 + 0.006 * math.sin(seed) + GAINS[name] + luck.gauss(0, 0.004)
    epochs = []
    for epoch in range(12):
        share = 1 - math.exp(-(epoch + 1) / 3.0)
        epochs.append(
            {
                "epoch": epoch + 1,
                "train_loss": 2.3 - 2.1 * share + luck.gauss(0, 0.02),
                "val_loss": 2.3 - 1.9 * share + luck.gauss(0, 0.03),
                "val_accuracy": 0.1 + (accuracy - 0.1) * share + luck.gauss(0, 0.008),
                "seconds": 4.0 + luck.random(),
            }
        )
    gates = [
        _gate(f"layer{block + 1}.0.attention.{kind}", kind, block / depth, luck, truth)
        for block in range(depth)
        for kind in KINDS[name]
    ]
    return {
        "id": f"{name}-{seed}",
        "variant": name,
        "seed": seed,
        "status": "finished",
        "reason": None,
        "epochs": epochs,
        "test": {"accuracy": accuracy, "macro_f1": accuracy - 0.003, "loss": 0.31},
        "gates": gates,
        "seconds": 54.0,
        "resumed": 0,
        "checkpoint": f"checkpoints/{name}-{seed}.safetensors",
        "picture": None,
    }


def _gate(site, kind, depth, luck, truth):
    state = "saturated" if kind == "what" and depth > 0.7 and luck.random() < 0.6 else "live"
    hits = None
    if truth and kind == "where":
        rate = 0.25 + 0.6 * depth + luck.gauss(0, 0.03)
        hits = {"rate": rate, "chance": 0.19, "samples": 1000}
    return {
        "site": site,
        "kind": kind,
        "mean": 0.93 + luck.gauss(0, 0.03),
        "spread": 0.11 + 0.1 * depth,
        "spread_over_inputs": 0.05 + 0.03 * depth,
        "low_fraction": 0.01,
        "high_fraction": 0.92 if state == "saturated" else 0.01,
        "moved": 0.1 + 0.1 * depth,
        "state": state,
        "hits": hits,
    }
