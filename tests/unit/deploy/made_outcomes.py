"""Made-up outcomes of the evaluation, as plausible as drawn numbers are."""

import numpy as np

from deploy.detection.outcome import BankOutcome, DriftNote, Outcome, WeightNote

FIRST_DAY = 17_700  # 2018-06-18
AP = {"own": 0.62, "lightgbm": 0.65, "merged": 0.775, "blend": 0.785, "pooled": 0.783}
REASONS = (
    "terminal.last_label_is_fraud x terminal.f_7d",
    "robust_ratio",
    "terminal.risk_7d x log_amount x spikes_3d",
    "attribute.channel",
    "attribute.v17 x gap_d",
    "device.f_1d",
    "spike_age",
    "night x log_amount x terminal.episode_age x attribute.device_age",
)


def made_bank(name, rng, *, systems=AP, n_weeks=4, n_points=12, shift=0.0):
    """Return a bank whose systems' precision is drawn about ``systems``."""
    ap, weeks, curves = {}, {}, {}
    for system, mean in systems.items():
        ap[system] = float(np.clip(mean + shift + rng.normal(0, 0.01), 0, 1))
        drawn = np.clip(ap[system] + rng.normal(0, 0.05, n_weeks), 0, 1)
        weeks[system] = [None if w == 2 and n_weeks > 4 else float(d) for w, d in enumerate(drawn)]
        recall = np.linspace(0.01, 1, n_points)
        bend = 1 / max(1 - ap[system], 0.02)
        precision = np.clip((1 - recall**bend) * 0.98 + 0.01 + rng.normal(0, 0.004, n_points), 0, 1)
        curves[system] = list(zip(recall.tolist(), precision.tolist(), strict=True))
    counts = sorted(rng.integers(10, 4_000, len(REASONS)).tolist(), reverse=True)
    return BankOutcome(
        name=name,
        n=int(rng.integers(20_000, 400_000)),
        n_frauds=int(rng.integers(200, 3_000)),
        ap=ap,
        ap_by_week=weeks,
        curve=curves,
        reasons=list(zip(REASONS, counts, strict=True)),
    )


def made_outcome(run="amalgamated", data="handbook-7", *, seed=1, names=("north", "south"), **more):
    """Return an outcome with banks; ``more`` goes to the banks as far as it is theirs."""
    rng = np.random.default_rng(seed)
    n_weeks = more.pop("n_weeks", 4)
    of_banks = {key: more.pop(key) for key in ("systems", "n_points", "shift") if key in more}
    banks = [made_bank(name, rng, n_weeks=n_weeks, **of_banks) for name in names]
    values = {
        "run": run,
        "data": data,
        "banks": banks,
        "seconds": 123.0,
        "weeks": [FIRST_DAY + 7 * k for k in range(n_weeks)],
        "release_id": f"{seed:064x}"[::-1],
    }
    return Outcome(**(values | more))


def made_blends(names, experts, *, n_days, seed=2, every_d=1):
    """Return notes of weights that wander."""
    rng = np.random.default_rng(seed)
    notes = []
    for name in names:
        level = rng.uniform(0.1, 0.6, len(experts))
        for day in range(0, n_days, every_d):
            level = np.clip(level + rng.normal(0, 0.03, len(experts)), 0.01, 1.2)
            weights = dict(zip(experts, level.round(3).tolist(), strict=True))
            notes.append(WeightNote(day=FIRST_DAY + day, bank=name, weights=weights))
    return notes


def made_trust(names, liars, *, n_days):
    """Return notes of members' weights: liars fall after five days."""
    return [
        WeightNote(
            day=FIRST_DAY + day,
            bank=name,
            weights={
                "evidence": 1.0 if name not in liars else max(0.0, 1 - max(day - 5, 0) / 6),
                "statistics": 1.0 if name not in liars or day < 8 else 0.0,
            },
        )
        for name in names
        for day in range(n_days)
    ]


def made_drift(names, *, n_days, n=20, seed=3):
    """Return alarms of two kinds."""
    rng = np.random.default_rng(seed)
    subjects = {"calibration": ("own", "merged"), "feature": ("log_amount", "terminal.n_7d")}
    notes = []
    for _ in range(n):
        kind = ("calibration", "feature")[rng.integers(2)]
        notes.append(
            DriftNote(
                day=FIRST_DAY + int(rng.integers(n_days)),
                bank=str(names[rng.integers(len(names))]),
                kind=kind,
                subject=subjects[kind][rng.integers(2)],
                detector="adwin",
            )
        )
    return notes


def made_cold(n_weeks=6):
    """Return a cold join that catches up."""
    return [
        (7.0 * w, 0.78 * (1 - 0.5 * np.exp(-1.1 * (w + 0.3))), None if w == 4 else 0.78)
        for w in range(n_weeks)
    ]


def made_evaluation(names=("north", "south", "west"), *, n_days=20, **sizes):
    """Return outcomes for every section of the report."""
    full = made_outcome(
        names=names,
        blends=made_blends(names, ("own", "merged", "lightgbm"), n_days=n_days),
        bases=[
            (FIRST_DAY, 1, 900, 0),
            (FIRST_DAY + 9, 2, 1_450, 32),
            (FIRST_DAY + 16, 3, 2_210, 64),
        ],
        drift=made_drift(names, n_days=n_days),
        **sizes,
    )
    liar = [names[-1]]
    attack = {"names": names, "systems": {"blend": 0.765, "own": 0.62}, "subjects": liar, **sizes}
    return [
        full,
        made_outcome(data="handbook-99", seed=4, names=names, **sizes),
        made_outcome(
            "mixed",
            seed=5,
            names=names,
            blends=made_blends(
                names, ("own", "merged", "mlp", "river"), n_days=n_days, seed=6, every_d=2
            ),
            **sizes,
        ),
        made_outcome("pooled_lightgbm", seed=7, names=names, systems={"lightgbm": 0.77}, **sizes),
        made_outcome(
            "clean_undefended", seed=8, names=names, systems={"blend": 0.78, "own": 0.62}, **sizes
        ),
        made_outcome(
            "one_poisoner", seed=9, trust=made_trust(names, liar, n_days=n_days), **attack
        ),
        made_outcome("one_poisoner_undefended", seed=10, shift=-0.5, **attack),
        made_outcome("cold", seed=11, names=names, cold=made_cold(), subjects=liar, **sizes),
        made_outcome(
            "foreign_amalgamated",
            "foreign-1",
            seed=12,
            names=tuple(f"f-{name}" for name in names),
            systems={"own": 0.35, "lightgbm": 0.42, "merged": 0.5, "blend": 0.53, "pooled": 0.5},
            **sizes,
        ),
        made_outcome("all_scorecard", seed=13, names=names, **sizes),
    ]
