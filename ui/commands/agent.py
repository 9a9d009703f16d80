"""`coprof agent`: profile this machine into a store until it is told to stop."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import click

from profiler.sampler import Sampler, SamplerSettings
from profiler.workloads import load_rules
from storage.store import Store
from storage.writer import StoreWriter
from ui.agent import CostMeter, interrupt_on_signals, raise_file_limit, stop_on_signals, store_windows
from ui.cli import EXIT_FAILED
from ui.config import AgentConfig, Config
from ui.messages import say
from ui.options import config_option, store_option, written_store


@click.command()
@config_option
@store_option
@click.option("--hz", type=click.IntRange(1, 999), help="Samples a second on each CPU.")
@click.option("--event", type=click.Choice(["auto", "cycles", "cpu-clock"]), help="What ticks.")
@click.pass_context
def command(ctx: click.Context, config: Config, store_path: Path | None, hz: int | None, event: str | None) -> None:
    """Profile this machine into a store."""
    interrupt_on_signals()
    raise_file_limit()
    try:
        is_stored = _profile(config, store_path, hz, event)
    except KeyboardInterrupt:  # told to stop before sampling began
        return
    if not is_stored:
        ctx.exit(EXIT_FAILED)


def _profile(config: Config, store_path: Path | None, hz: int | None, event: str | None) -> bool:
    """Profile until told to stop; False when the store took no windows at the end."""
    sampler = Sampler(sampler_settings(config.agent, hz, event), load_rules(rules_file(config.agent)))
    store = Store.open(written_store(config, store_path), create=True)
    with StoreWriter(store, sampler.node.name) as writer, sampler:
        stop_on_signals(sampler)
        for name in writer.moved_segments:
            say(f"damaged segment moved aside: {name}")
        node = sampler.node
        say(f"sampling {node.name} at {node.sample_hz} Hz on {node.sample_event} into {store.root}")
        if sampler.without_accounting:
            say(f"waits are not accounted for: {sampler.without_accounting}")
        store_windows(sampler, writer, CostMeter(sampler.bpf_bytes), say)
        return not writer.is_refusing


def sampler_settings(agent: AgentConfig, hz: int | None, event: str | None) -> SamplerSettings:
    """The configuration's settings, with what the command line says instead."""
    return SamplerSettings(
        hz=hz or agent.hz,
        event=event or agent.event,
        window_s=agent.window_s,
        node_name=agent.node,
        cgroup_mode=agent.cgroup_mode,
        agent_version=importlib.metadata.version("coprof"),
    )


def rules_file(agent: AgentConfig) -> Path | None:
    """The user's rule file, None where none is configured."""
    return Path(agent.rules) if agent.rules else None
