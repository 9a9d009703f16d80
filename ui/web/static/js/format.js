/**
 * Numbers and foreign text to what a person reads. No DOM, no state.
 */

// Control characters, bidirectional overrides and invisible characters could make one name look like another.
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]/g;
const NAME_LIMIT = 4096; // longer names are cut; C++ templates rarely pass 1,000

/**
 * Foreign text with everything unseen made visible, and no longer than `limit`.
 * @param {string} text
 * @param {number} [limit]
 */
export function shownName(text, limit = NAME_LIMIT) {
	const cut = text.length > limit ? `${text.slice(0, limit)}… (${text.length} characters)` : text;
	return cut.replace(UNSEEN, (character) => `⟨U+${character.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);
}

/**
 * @param {number} part
 * @param {number} whole
 */
export function percent(part, whole) {
	if (!(whole > 0)) return "–";
	const value = (100 * part) / whole;
	if (value > 0 && value < 0.01) return "<0.01 %";
	const digits = value >= 99.95 || value === 0 ? 0 : value >= 10 ? 1 : 2;
	return `${value.toFixed(digits)} %`;
}

/** @param {number} value */
export function cores(value) {
	if (value === 0) return "0";
	if (value < 0.001) return "<0.001";
	return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value >= 1 ? value.toFixed(2) : value.toFixed(3);
}

/** @param {number} value */
export function count(value) {
	return Math.round(value).toLocaleString("en-GB").replaceAll(",", "\u202f");
}

const DURATIONS = /** @type {const} */ ([
	[3.6e12, "h"],
	[6e10, "min"],
	[1e9, "s"],
	[1e6, "ms"],
	[1e3, "µs"],
]);

/** @param {number} ns */
export function duration(ns) {
	if (ns === 0) return "0";
	for (const [unit, label] of DURATIONS) {
		if (ns >= unit) {
			const value = ns / unit;
			return `${value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2)} ${label}`;
		}
	}
	return `${Math.round(ns)} ns`;
}

/**
 * Time of day in the reader's zone, with the date when it is not today.
 * @param {number} ms
 * @param {number} nowMs
 */
export function clock(ms, nowMs) {
	const then = new Date(ms);
	const time = [then.getHours(), then.getMinutes(), then.getSeconds()].map(twoDigits).join(":");
	if (then.toDateString() === new Date(nowMs).toDateString()) return time;
	return `${then.getFullYear()}-${twoDigits(then.getMonth() + 1)}-${twoDigits(then.getDate())} ${time}`;
}

/** @param {number} value */
function twoDigits(value) {
	return String(value).padStart(2, "0");
}
