"""What the detection report says beside its plots and tables, for a bank's data scientist."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SectionText:
    """Words of a section.

    Parameters
    ----------
    anchor, title
        Of the heading.
    how
        How to read it, paragraphs.
    wants
        What is missing when it shows nothing.
    """

    anchor: str
    title: str
    how: tuple[str, ...]
    wants: str


_ALL = (
    SectionText(
        anchor="banks",
        title="Banks",
        how=(
            "AP is average precision, the area under the curve of precision against recall: 1 "
            "would be every fraud before every legitimate payment, and a score that knows "
            "nothing gets the share of fraud. It is comparable between systems at one bank, not "
            "between banks whose shares of fraud differ.",
            "What a bank gains by taking part is amalgamated against alone; what it loses by "
            "not handing over its data is amalgamated against pooled.",
        ),
        wants="an outcome with average precision of banks",
    ),
    SectionText(
        anchor="curves",
        title="Precision and recall",
        how=(
            "Recall is the share of frauds found, precision the share of alerts that are "
            "frauds. Choose the precision that your analysts can bear and read across to the "
            "curve: right of another curve means more frauds for the same work.",
            "The left end is the few most suspicious payments; where it is ragged, few payments "
            "are behind it. The broad band is pooled: a curve that covers it has lost nothing.",
        ),
        wants="an outcome with curves",
    ),
    SectionText(
        anchor="weeks",
        title="Week by week",
        how=(
            "Average precision of each week by itself. A week with few frauds jumps: look at "
            "the distance between the lines, which the week has in common, rather than at their "
            "height.",
            "A gap is a week without a fraud. A fall of all lines is a harder week; a fall of "
            "one alone is that system's.",
        ),
        wants="an outcome with average precision by week",
    ),
    SectionText(
        anchor="experts",
        title="What each bank relied on",
        how=(
            "A bank weighs its experts, its own models and the merged ones, by how well they "
            "did on its own outcomes of the last weeks. The weights multiply log-odds.",
            "An expert at 0, or whose line ends, was dropped because it fell too far behind. "
            "A small bank should lean on the merged scorecard, a large one may lean on its "
            "own.",
        ),
        wants="an outcome with weights of experts (blends)",
    ),
    SectionText(
        anchor="trust",
        title="How far members were trusted",
        how=(
            "What a member publishes counts in the merge times this weight: 1 is in full, 0 not "
            "at all. The other members' outcomes decide, never its own word.",
            "An honest member should stay at 1; one that lies should fall within days of its "
            "first lie and stay down. A dip of an honest member is what the defence costs.",
        ),
        wants="an outcome with weights of members (trust)",
    ),
    SectionText(
        anchor="bases",
        title="Growth of the basis",
        how=(
            "The basis is the list of what the common scorecard may weigh: bins of features, "
            "crosses of two, leaves of trees that members proposed. A new one comes when the "
            "data have grown or trees have been proposed.",
            "Each dot is a basis that came into force. More weights with few frauds behind them "
            "would show as a fall in the weeks above.",
        ),
        wants="an outcome with bases",
    ),
    SectionText(
        anchor="cold",
        title="A bank that joins cold",
        how=(
            "The same bank and payments twice: with its history, and joining without any on day "
            "0, so that at first only the consortium's models know anything.",
            "From day 21 on, the upright line, the share over all rows together is held to "
            ".95, the dashed line. Above 1 is chance, or old habits that the warm bank had "
            "better forgotten.",
        ),
        wants="an outcome of a cold join",
    ),
    SectionText(
        anchor="attacks",
        title="Under attack",
        how=(
            "Some members publish lies that look well formed. Clean is the same consortium "
            "while nobody lies; undefended counts every member in full; defended weighs members "
            "by trust.",
            "Defended should be near clean, and at every honest bank above alone: the last "
            "column is below 1 where a bank would have done better without the consortium. The "
            "row of nobody shows what the defence costs when there is nothing to defend "
            "against.",
        ),
        wants="an outcome of an attack, e.g. one_poisoner",
    ),
    SectionText(
        anchor="drift",
        title="Alarms of drift",
        how=(
            "Calibration: frauds come more or less often than an expert's scores say. Feature: "
            "payments of a bank look different from before, whatever their outcome.",
            "Several banks on one day point to the world, one bank alone to its own systems or "
            "customers. A calibration alarm makes the expert forget faster for a while; a "
            "feature alarm is for you to look into. Some alarms come without any drift.",
        ),
        wants="an outcome with alarms of drift",
    ),
    SectionText(
        anchor="reasons",
        title="Why alerts were given",
        how=(
            "A reason is a summand of the score that spoke for fraud in an alert. A cross of "
            "two features or a leaf of a tree is told as its features, joined by ×; an "
            "attribute is told by its name in the records.",
            "Frequent is not decisive: a reason that is seldom given may be the strongest where "
            "it is. A bank whose reasons differ from the others' sees another kind of fraud.",
        ),
        wants="an outcome with reasons",
    ),
)
TEXTS: Mapping[str, SectionText] = {text.anchor: text for text in _ALL}
RUNS: Mapping[str, str] = {
    "all_scorecard": "every bank runs the scorecard and nothing else",
    "amalgamated": "every bank runs LightGBM too, and its trees join the common basis",
    "mixed": "banks run models of different types beside the scorecard",
    "paces": "banks publish at paces of their own",
    "probe_only": "banks publish no statistics and only answer probes",
    "cold": "one bank joins without a history",
    "away": "one bank neither publishes nor hears releases for a while",
    "drift_watched": "every bank runs the scorecard, watches for drift and acts on it",
    "currency_unaligned": "one bank's amounts come in another unit, and nobody knows",
    "currency_aligned": "the same, told to be unknown, and aligned by rank",
    "scales_unaligned": "one bank writes its attributes in scales of its own, and nobody knows",
    "scales_aligned": "the same, told to be unknown, and aligned by rank",
    "clean_undefended": "nobody lies, and every member counts in full",
    "one_poisoner": "one member learns and publishes the opposite of every outcome",
    "one_poisoner_undefended": "the same, and every member counts in full",
    "two_poisoners": "two members do so together",
    "pooled": "one scorecard on all data in one place",
    "pooled_lightgbm": "LightGBM on all data in one place",
    "local_lightgbm": "LightGBM on each bank's own data",
}
"""Run -> what is done in it."""
