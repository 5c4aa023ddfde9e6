"""Names of features as a reader of the report knows them."""

from collections.abc import Mapping

from models.schema import ATTRIBUTE

_ACCOUNT: Mapping[str, str] = {
    "log_amount": "amount",
    "weekend": "weekend",
    "night": "night",
    "n_1d": "payments in 1 day",
    "n_7d": "payments in 7 days",
    "n_30d": "payments in 30 days",
    "ratio_30d": "amount against the 30-day mean",
    "z_30d": "amount against the 30-day spread",
    "log_mean_30d": "30-day mean",
    "mean_1d_30d": "1-day mean against the 30-day mean",
    "mean_7d_30d": "7-day mean against the 30-day mean",
    "frauds_7d": "known frauds in 7 days",
    "frauds_30d": "known frauds in 30 days",
    "robust_ratio": "amount against the usual one",
    "spikes_3d": "high payments in 3 days",
    "spikes_10d": "high payments in 10 days",
    "spike_age": "time since a high payment",
    "fraud_age": "time since a known fraud",
    "first_fraud_age": "time since the first fraud of the run",
    "gap_d": "time since the last payment",
}
_ENTITY: Mapping[str, str] = {
    "n_7d": "known outcomes in 7 days",
    "n_30d": "known outcomes in 30 days",
    "f_1d": "known frauds in 1 day",
    "f_7d": "known frauds in 7 days",
    "f_30d": "known frauds in 30 days",
    "risk_1d": "share of fraud in 1 day",
    "risk_7d": "share of fraud in 7 days",
    "risk_30d": "share of fraud in 30 days",
    "fraud_age": "time since a known fraud",
    "legit_age": "time since a known legitimate payment",
    "last_label_is_fraud": "newest outcome is fraud",
    "episode_age": "time since the fraud episode began",
}


def feature_words(code: str) -> str:
    """Return words for a reason's code: a feature, or a cross of two.

    Examples
    --------
    >>> feature_words("terminal.last_label_is_fraud x terminal.f_7d")
    'terminal: newest outcome is fraud × known frauds in 7 days'
    >>> feature_words("terminal.f_7d x log_amount")
    'terminal: known frauds in 7 days × account: amount'
    """
    parts = [_owner_and_words(side) for side in code.split(" x ")]
    out: list[str] = []
    before = ""
    for owner, words in parts:
        out.append(words if owner == before else f"{owner}: {words}")
        before = owner
    return " × ".join(out)


def _owner_and_words(feature: str) -> tuple[str, str]:
    attribute = feature.removeprefix(f"{ATTRIBUTE}.")
    if attribute != feature:
        return ATTRIBUTE, attribute
    kind, dot, name = feature.rpartition(".")
    if dot:
        return kind, _ENTITY.get(name, name)
    return "account", _ACCOUNT.get(name, name)
