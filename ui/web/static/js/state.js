/**
 * The address to what is shown, and back: the query string is the whole state, so that a link, a reload and the back
 * button give the same picture. Live means: the range is relative to now, and moves.
 */

/**
 * @typedef {object} ViewerState
 * @property {string} since as the server reads times: "-15m", RFC 3339, Unix ms
 * @property {string} until "" for now, which makes it live
 * @property {number} from start of the part picked in the chart, Unix ms; 0 for the whole range
 * @property {number} to
 * @property {string} workload "" for all
 * @property {string} node "" for all
 * @property {string} zoom
 * @property {string} search
 * @property {boolean} isFlame
 * @property {import("./palette.js").ColourBy} colourBy
 */

export const DEFAULT_SINCE = "-15m";

/**
 * @param {string} query
 * @returns {ViewerState}
 */
export function parseState(query) {
	const given = new URLSearchParams(query);
	const text = (/** @type {string} */ key) => (given.get(key) ?? "").slice(0, 4096);
	const [from, to] = [Number(text("from")), Number(text("to"))];
	const isPart = Number.isFinite(from) && Number.isFinite(to) && 0 < from && from < to;
	return {
		since: text("since") || DEFAULT_SINCE,
		until: text("until"),
		from: isPart ? from : 0,
		to: isPart ? to : 0,
		workload: text("workload"),
		node: text("node"),
		zoom: /^[0-9a-f]{16}$/.test(text("zoom")) ? text("zoom") : "",
		search: text("search"),
		isFlame: text("view") === "flame",
		colourBy: text("colour") === "kind" ? "kind" : "module",
	};
}

/**
 * @param {ViewerState} state
 * @returns {string} with its "?", defaults left out; "?" alone for all defaults
 */
export function formatState(state) {
	const given = new URLSearchParams();
	const put = (/** @type {string} */ key, /** @type {string} */ value) => value && given.set(key, value);
	put("since", state.since === DEFAULT_SINCE && !state.until ? "" : state.since);
	put("until", state.until);
	put("from", state.from ? String(Math.round(state.from)) : "");
	put("to", state.to ? String(Math.round(state.to)) : "");
	put("workload", state.workload);
	put("node", state.node);
	put("zoom", state.zoom);
	put("search", state.search);
	put("view", state.isFlame ? "flame" : "");
	put("colour", state.colourBy === "kind" ? "kind" : "");
	return `?${given}`;
}

/** @param {ViewerState} state */
export function isLive(state) {
	return state.until === "" && /^-?\d+(\.\d+)?[smhdw]$/.test(state.since);
}

const UNIT_MS = { s: 1e3, m: 6e4, h: 3.6e6, d: 8.64e7, w: 6.048e8 };

/**
 * Length of a relative time such as "-15m"; 0 for anything else.
 * @param {string} since
 */
export function spanMs(since) {
	const parts = /^-?(\d+(?:\.\d+)?)([smhdw])$/.exec(since);
	return parts ? Number(parts[1]) * UNIT_MS[/** @type {keyof typeof UNIT_MS} */ (parts[2])] : 0;
}

/**
 * A range of `lengthMs` around the same middle, moved by `shift` of its old length.
 * @param {{since_ms: number, until_ms: number}} range
 * @param {number} factor new length by old
 * @param {number} shift
 * @returns {{since: string, until: string}}
 */
export function otherRange(range, factor, shift) {
	const length = range.until_ms - range.since_ms;
	const middle = (range.since_ms + range.until_ms) / 2 + shift * length;
	const half = Math.max(5000, (length * factor) / 2);
	return { since: isoTime(middle - half), until: isoTime(middle + half) };
}

/** @param {number} ms */
export function isoTime(ms) {
	return new Date(Math.max(0, Math.round(ms))).toISOString().replace(".000Z", "Z");
}
