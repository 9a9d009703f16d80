/**
 * Questions to the server this page came from, and its answers. Unchanged answers cost a 304: the browser keeps the
 * last one and asks with its tag.
 */

/** An answer that is an error, in the server's words. */
export class Refused extends Error {
	/**
	 * @param {string} message
	 * @param {number} status 0 when nobody answered
	 */
	constructor(message, status) {
		super(message);
		this.status = status;
	}
}

/**
 * @typedef {object} Range
 * @property {string} since
 * @property {string} until
 * @property {number} since_ms
 * @property {number} until_ms
 */

/** @typedef {{counter: string, count: number, meaning: string}} Loss */
/** @typedef {{workload: string, service_class: string, cpu_ns: number, cores: number | null, samples: number, cgroups: number}} Workload */
/** @typedef {{name: string, cpus: number, kernel: string, sample_hz: number, sample_event: string, agent_version: string, last_ms: number | null, windows: number}} NodeSummary */

/**
 * @typedef {object} Overview
 * @property {Range} range
 * @property {number | null} first_ms
 * @property {number | null} last_ms
 * @property {number} cpus
 * @property {NodeSummary[]} nodes
 * @property {Workload[]} workloads the largest first
 * @property {{step_ms: number, times_ms: number[], names: string[], cores: (number | null)[][]}} series
 * @property {number} windows
 * @property {number} covered_ms
 * @property {number} gap_ms
 * @property {Loss[]} losses
 * @property {number} samples
 * @property {Record<string, number>} quality
 * @property {{cpu_pct: number | null, rss_bytes: number | null, bpf_bytes: number | null}} agent
 * @property {string[]} bad_segments
 */

/** @typedef {import("./tree.js").FlameAnswer & {range: Range, nodes: number, windows: number, losses: Loss[], bad_segments: string[]}} Flame */

/**
 * @param {Record<string, string>} parameters empty ones are left out
 * @param {AbortSignal} signal
 * @returns {Promise<Overview>}
 */
export function readOverview(parameters, signal) {
	return /** @type {Promise<Overview>} */ (ask("overview", parameters, signal));
}

/**
 * @param {Record<string, string>} parameters
 * @param {AbortSignal} signal
 * @returns {Promise<Flame>}
 */
export function readFlame(parameters, signal) {
	return /** @type {Promise<Flame>} */ (ask("flame", parameters, signal));
}

/**
 * @param {string} question
 * @param {Record<string, string>} parameters
 * @param {AbortSignal} signal
 * @returns {Promise<unknown>}
 */
async function ask(question, parameters, signal) {
	const given = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value));
	let response;
	try {
		response = await fetch(`/api/v1/${question}?${given}`, { signal, credentials: "same-origin" });
	} catch (error) {
		if (error instanceof TypeError) throw new Refused("the viewer does not answer; was it stopped?", 0);
		throw error;
	}
	const answer = await response.json();
	if (!response.ok) throw new Refused(answer.error ?? `the viewer answered ${response.status}`, response.status);
	return answer;
}
