"""``python -m deploy.warm``: compiles every kernel once, so that no worker waits for it later."""

import sys
import time
from pathlib import Path

import numpy as np

from amalgamator.core import Amalgamator
from amalgamator.policy import BasisPolicy, FoldConfig
from amalgamator.registry import Member, Registry
from deploy.bank_formats import BankFormat, LabelledBatch
from deploy.demo import KINDS, bank_stream
from deploy.local import LocalConsortium
from deploy.simulator import SimulationConfig, bank_parts
from models.decoding import TransactionDecoder
from models.families.curvature import FIRST_N, CurvatureSum
from models.features.digest_index import DigestIndex
from models.features.key_index import KeyIndex
from models.features.name_index import NameIndex
from models.keys import Signer, Verifier
from models.mapping import load_mapping
from models.schema import Schema, attribute_specs
from stream.drift_policy import DriftPolicy
from stream.experts import LearningPolicy
from stream.pipeline import Pipeline
from stream.pipeline_config import PipelineConfig
from stream.proposals import ProposalPolicy

_DAY_MS = 86_400_000
_MIN_N = 100
_OUTGROWN = 6_000  # keys: more than any table has room for at its start


def main() -> int:
    """Run a consortium of two tiny banks from the first payment to a basis with trees."""
    started_s = time.perf_counter()
    mapping = load_mapping(Path(__file__).parent / "demo_banks" / "alpenkasse.toml")
    simulation = SimulationConfig(bank_shares=(0.6, 0.4), n_days=8, n_customers=60)
    attributes = attribute_specs({name: at.type for name, at in mapping.attributes.items()})
    schema = Schema(entity_kinds=KINDS, attributes=attributes)
    verifier = Verifier(Signer.generate().public_key)
    members, pipelines, streams = {}, {}, {}
    for i, name in enumerate(("one", "two")):
        members[name] = Member(name=name, verifiers={verifier.key_id: verifier}, workers=("0",))
        pipelines[name] = Pipeline(_config(name, schema))
        parts = [_with_fraud(part) for part in bank_parts(simulation, i, mapping, seed=1)]
        streams[name] = bank_stream(parts, _DAY_MS)
        format_ = BankFormat(mapping)
        TransactionDecoder(mapping).decode(format_.transactions(parts[0].batch))
    registry = Registry(consortium="warm", entity_kinds=KINDS, members=members)
    change = BasisPolicy(min_n=_MIN_N, min_frauds=1, switch_coverage=0.5)
    policy = FoldConfig(schema=schema, basis=change, kappa=1.0)
    amalgamator = Amalgamator(registry, policy, lockstep=True)
    sixth_ms = simulation.start_ms + 5 * _DAY_MS
    away = {"two": (sixth_ms, sixth_ms + _DAY_MS)}  # while the basis changes
    LocalConsortium(pipelines, amalgamator, cadence_ms=_DAY_MS, away=away).run(
        streams, on_scored=lambda *_: None
    )
    _outgrow_tables()
    _add_many_rows()
    sys.stdout.write(f"kernels compiled in {time.perf_counter() - started_s:.0f} s\n")
    return 0


def _outgrow_tables() -> None:
    """Have every index move into a larger table, which two tiny banks do not need."""
    keys, digests, names = KeyIndex(), DigestIndex(), NameIndex()
    words = np.random.default_rng(1).integers(0, 2**63, (_OUTGROWN, 2)).astype(np.uint64)
    for start in range(0, _OUTGROWN, _MIN_N):
        some = words[start : start + _MIN_N]
        keys.add(some[:, 0].copy())
        digests.put(some, np.arange(len(some)))
        names.rows(some.view(np.uint8), np.zeros(len(some), np.uint8))


def _add_many_rows() -> None:
    """Sum so many rows that references are found, which two tiny banks do not have."""
    many = CurvatureSum(1)
    many.add(np.zeros((FIRST_N, 1), np.int32), np.ones(FIRST_N))
    many.square()


def _config(member: str, schema: Schema) -> PipelineConfig:
    """Return a bank that learns, grows trees and watches for drift from the first days on."""
    return PipelineConfig(
        member=member,
        schema=schema,
        secret=bytes(32),
        label_horizon_ms=_DAY_MS,
        families=(f"lightgbm {{n_trees = 2, refit_d = 1, min_n = {_MIN_N}, min_frauds = 1}}",),
        learning=LearningPolicy(first_n=_MIN_N, first_frauds=1),
        proposing=ProposalPolicy(n_trees=4, min_n=_MIN_N, min_frauds=1),
        drift=DriftPolicy(),
    )


def _with_fraud(part: LabelledBatch) -> LabelledBatch:
    return LabelledBatch(
        batch=part.batch, is_fraud=part.is_fraud | (np.arange(len(part.is_fraud)) % 10 == 0)
    )


if __name__ == "__main__":
    sys.exit(main())
