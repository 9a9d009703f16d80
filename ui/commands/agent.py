"""`coprof agent`: profile this machine into a store until it is told to stop."""

from __future__ import annotations

import importlib.metadata
import signal
from pathlib import Path

import click

from profiler.sampler import Sampler, SamplerSettings
from profiler.workloads import load_rules
from storage.store import Store
from storage.writer import StoreWriter
from ui.agent import CostMeter, store_windows
from ui.config import AgentConfig, Config
from ui.messages import say
from ui.options import config_option, store_option, written_store


@click.command()
@config_option
@store_option
@click.option("--hz", type=click.IntRange(1, 999), help="Samples a second on each CPU.")
@click.option("--event", type=click.Choice(["auto", "cycles", "cpu-clock"]), help="What ticks.")
def command(config: Config, store_path: Path | None, hz: int | None, event: str | None) -> None:
    """Profile this machine into a store."""
    sampler = Sampler(sampler_settings(config.agent, hz, event), load_rules(rules_file(config.agent)))
    store = Store.open(written_store(config, store_path), create=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sampler.stop())
    with StoreWriter(store, sampler.node.name) as writer, sampler:
        for name in writer.moved_segments:
            say(f"damaged segment moved aside: {name}")
        node = sampler.node
        say(f"sampling {node.name} at {node.sample_hz} Hz on {node.sample_event} into {store.root}")
        store_windows(sampler, writer, CostMeter(sampler.bpf_bytes), say)


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
