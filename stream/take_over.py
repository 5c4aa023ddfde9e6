"""A worker's start with a changelog: it is claimed, and read where the disk holds nothing newer."""

import asyncio
import logging
import secrets
import time
from typing import NamedTuple

from models.errors import StateError
from models.topics import BankTopics
from stream.aside import Aside
from stream.changelog import Harvest, Owner, check_owner
from stream.changelog_topic import ChangelogTopic
from stream.followed import Followed
from stream.manifest import Manifest, unseal
from stream.settings import Membership, Settings
from stream.store import StateStore

log = logging.getLogger(__name__)


class Places(NamedTuple):
    """Where a worker's state goes: its disk, and perhaps its changelog; both are written aside."""

    store: StateStore
    changelog: ChangelogTopic | None
    aside: Aside


def changelog_of(settings: Settings, membership: Membership) -> ChangelogTopic:
    """Return the changelog of a worker, not connected yet."""
    return ChangelogTopic(
        settings.bank_bootstrap,
        BankTopics(settings.member).changelog(settings.worker),
        Owner(settings.member, settings.worker, membership.schema.hash),
        process=secrets.token_hex(8),
    )


class Found(NamedTuple):
    """The state that a changelog held, and whether the store has been brought to it."""

    state: Manifest | None
    is_restored: bool


async def take_over(
    changelog: ChangelogTopic,
    store: StateStore,
    *,
    is_anew: bool,
    followed: Followed | None = None,
) -> Found:
    """Claim a changelog, and bring the store to what it holds if that is newer.

    A store that was brought to it is then to be loaded; any is to begin the new epoch.

    Parameters
    ----------
    changelog
        Connected.
    store
        Of the worker; empty on a new host.
    is_anew
        Whether an empty store is to begin anew instead.
    followed
        How far a copy had been kept up to date that the store perhaps holds; then only what came
        after it is read.

    Raises
    ------
    StateError
        If the changelog is another worker's, or a page of it is not as its manifest says; the
        store then holds no state.
    SupersededError
        If another process claims it at the same time.
    """
    held = store.stamp()
    begins_anew = is_anew and held is None
    found = await changelog.claim(0 if held is None else held.epoch, is_anew=begins_anew)
    state = None if found is None else found.state()
    if found is None or state is None or begins_anew:
        return Found(state, is_restored=False)
    is_restored = held is None or state.stamp > held
    if is_restored:
        is_copy = followed is not None and held == followed.stamp
        await _restore(changelog, store, found.manifest, followed if is_copy else None)
    return Found(state, is_restored)


async def look(changelog: ChangelogTopic) -> Manifest:
    """Return the state that a changelog holds, every page of it held against its hash.

    Raises
    ------
    StateError
        If there is none, it is another worker's, or not whole.
    """
    end = await changelog.end()
    found = await changelog.newest(end)
    state = None if found is None else found.state()
    if found is None or state is None:
        raise StateError("changelog: expected a state, found none")
    check_owner(found, changelog.owner)
    harvest = Harvest(state)
    async for pairs in changelog.records(await changelog.beginning(), end):
        harvest.take(pairs)
    harvest.check()
    return state


async def _restore(
    changelog: ChangelogTopic, store: StateStore, manifest: bytes, followed: Followed | None
) -> None:
    started_s, harvest, size_bytes = time.perf_counter(), Harvest(unseal(manifest)), 0
    start, copied = await changelog.beginning(), store.sealed()
    if followed is not None and copied is not None:
        harvest.have(unseal(copied))
        start = max(start, followed.offset)
    await asyncio.to_thread(store.forget)
    async for pairs in changelog.records(start, await changelog.end()):
        pages = harvest.take(pairs)
        size_bytes += sum(len(page) for _, page in pages)
        await asyncio.to_thread(store.put, pages)
    harvest.check()
    await asyncio.to_thread(store.take, manifest)
    changelog.leftover |= harvest.leftover
    log.info(
        "restored %.1f MB from the changelog in %.1f s",
        size_bytes / 1e6,
        time.perf_counter() - started_s,
    )
