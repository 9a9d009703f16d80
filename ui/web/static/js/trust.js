/**
 * What the numbers rest on, in words: windows, gaps, losses, cut stacks, and why there may be nothing to see.
 */

import { el } from "./dom.js";
import { clock, count, duration, percent } from "./format.js";

/** @typedef {import("./api.js").Overview} Overview */
/** @typedef {import("./api.js").Flame} Flame */

const STALE_MS = 30_000; // three windows of ten seconds
const WORTH_SAYING = 0.001; // a gap below a thousandth of the range is rounding

/** @type {Record<string, string>} */
const QUALITY = {
	none: "kernel threads",
	frame_pointer: "walked by frame pointers",
	truncated: "cut at the frame limit",
	failed: "user stack unreadable",
	lost: "stack lost",
};

/**
 * @param {Overview} overview
 * @param {Flame | null} flame
 * @returns {HTMLElement[]}
 */
export function trustLine(overview, flame) {
	const items = [item(`${count(overview.samples)} samples`, overview.nodes.map((node) => `${node.name}: ${node.cpus} CPUs, ${node.sample_hz} Hz on ${node.sample_event}, kernel ${node.kernel}`).join("\n"))];
	items.push(item(`${count(overview.windows)} windows`, `${duration(overview.covered_ms * 1e6)} covered by windows`));
	const length = overview.range.until_ms - overview.range.since_ms;
	if (overview.gap_ms > length * WORTH_SAYING) items.push(item(`${duration(overview.gap_ms * 1e6)} without windows`, "the agent was not running, or its windows were dropped", "warn"));
	items.push(lossItem(overview));
	items.push(...qualityItems(overview.quality));
	if (overview.bad_segments.length) items.push(item(`${count(overview.bad_segments.length)} damaged segments left out`, overview.bad_segments.join("\n"), "warn"));
	if (flame && flame.nodes > flame.tree.depth.length) items.push(item(`${count(flame.tree.depth.length)} of ${count(flame.nodes)} frames`, "the smallest frames are summed as (other); totals are complete"));
	if (overview.agent.cpu_pct !== null) items.push(item(`agent ${overview.agent.cpu_pct.toFixed(2)} % of a CPU`, agentMemory(overview)));
	return items;
}

/** @param {Overview} overview */
function agentMemory({ agent }) {
	const parts = [["memory", agent.rss_bytes], ["in BPF", agent.bpf_bytes]];
	return parts.filter(([, bytes]) => bytes !== null).map(([label, bytes]) => `${label} ${(Number(bytes) / 1048576).toFixed(0)} MiB`).join(", ");
}

/** @param {Overview} overview */
function lossItem(overview) {
	const lost = overview.losses.filter(({ counter }) => counter.startsWith("lost") || counter.startsWith("dropped"));
	const details = overview.losses.map(({ counter, count: times, meaning }) => `${counter} ${count(times)}: ${meaning}`).join("\n");
	if (!lost.length) return item(details ? "no samples lost" : "nothing lost", details || "every counter of a loss is zero");
	const sum = lost.reduce((total, loss) => total + loss.count, 0);
	return item(`${count(sum)} lost`, details, "warn");
}

/** @param {Record<string, number>} quality */
function qualityItems(quality) {
	const shares = Object.entries(quality).filter(([, share]) => share > 0).sort((a, b) => b[1] - a[1]);
	if (!shares.length) return [];
	const details = shares.map(([end, share]) => `${QUALITY[end] ?? end} ${percent(share, 1)}`).join("\n");
	const broken = ["truncated", "failed", "lost"].reduce((sum, end) => sum + (quality[end] ?? 0), 0);
	return [item(broken ? `${percent(broken, 1)} of stacks incomplete` : "stacks complete as far as known", `how the user part of stacks ended:\n${details}`, broken > 0.05 ? "warn" : "")];
}

/**
 * @param {string} text
 * @param {string} details
 * @param {string} [mood]
 */
function item(text, details, mood = "") {
	return el("span", { class: `fact ${mood}`, title: details, tabindex: details ? 0 : -1 }, text);
}

/**
 * Why the flame graph is empty; `null` when it is not.
 * @param {Overview} overview of the range asked for
 * @param {Flame} flame
 * @param {string} workload
 * @param {number} nowMs
 * @returns {(string | Node)[] | null}
 */
export function emptyWords(overview, flame, workload, nowMs) {
	if (flame.tree.samples[0] > 0) return null;
	if (overview.last_ms === null || overview.first_ms === null) {
		return [el("strong", {}, "No data yet"), el("p", {}, "The store is empty. The first window arrives about ten seconds after the agent has started:"), el("code", {}, "coprof agent")];
	}
	if (!overview.windows) return [el("strong", {}, "No window in this range"), el("p", {}, `The store holds ${clock(overview.first_ms, nowMs)} to ${clock(overview.last_ms, nowMs)}.`)];
	if (workload && overview.samples) return [el("strong", {}, "No samples of this workload here"), el("p", {}, "Others ran in this range; pick one at the left, or another time.")];
	return [el("strong", {}, "Idle"), el("p", {}, `${count(overview.windows)} windows were taken in this range, and every tick found the CPUs idle.`)];
}

/**
 * A warning that data stopped coming; "" while it comes.
 * @param {Overview} overview
 * @param {boolean} live
 * @param {number} nowMs
 */
export function staleWords(overview, live, nowMs) {
	if (!live || overview.last_ms === null || nowMs - overview.last_ms < STALE_MS) return "";
	return `No new data since ${clock(overview.last_ms, nowMs)} (${duration((nowMs - overview.last_ms) * 1e6)}): is the agent running? Start it with: coprof agent`;
}
