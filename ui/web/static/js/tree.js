/**
 * The answer of `/api/v1/flame` to a call tree in typed columns.
 *
 * Rows are in pre-order: row 0 is the root, the subtree of row `r` is the rows `r` to `end[r] - 1`.
 * Refuses an answer whose columns disagree. Names are foreign text: this module only compares and hashes them.
 */

import { shownName } from "./format.js";

/**
 * @typedef {object} Frames one entry a distinct frame
 * @property {string[]} name as drawn: made harmless by `shownName`
 * @property {string[]} module
 * @property {string[]} kind "root", "workload", "user", "kernel" or "synthetic"
 * @property {string[]} state "ok", or why the frame has no function name
 */

/**
 * @typedef {object} Tree
 * @property {string} unit
 * @property {number} size number of rows
 * @property {Int32Array} depth
 * @property {Int32Array} parent -1 for the root
 * @property {Int32Array} end row behind the subtree
 * @property {Int32Array} frame row in `frames`
 * @property {Float64Array} self
 * @property {Float64Array} total
 * @property {Float64Array} samples
 * @property {Frames} frames
 */

/**
 * @typedef {object} FlameAnswer
 * @property {string} unit
 * @property {{depth: number[], frame: number[], self: number[], samples: number[]}} tree
 * @property {{name: number[], module: number[], kind: number[], state: number[]}} frames rows in `strings`
 * @property {string[]} strings
 */

/**
 * @param {FlameAnswer} answer
 * @returns {Tree}
 */
export function decodeTree(answer) {
	const depth = Int32Array.from(answer.tree.depth);
	const size = depth.length;
	const frame = Int32Array.from(answer.tree.frame);
	const self = Float64Array.from(answer.tree.self);
	const samples = Float64Array.from(answer.tree.samples);
	const frames = decodeFrames(answer);
	if (frame.length !== size || self.length !== size || samples.length !== size) {
		throw new Error("flame answer: columns of different length");
	}
	const { parent, end } = linkRows(depth);
	for (let row = 0; row < size; row++) {
		if (!(frame[row] >= 0 && frame[row] < frames.name.length)) throw new Error(`flame answer: no frame ${frame[row]}`);
	}
	const total = Float64Array.from(self);
	for (let row = size - 1; row > 0; row--) total[parent[row]] += total[row];
	return { unit: answer.unit, size, depth, parent, end, frame, self, total, samples, frames };
}

/**
 * @param {FlameAnswer} answer
 * @returns {Frames}
 */
function decodeFrames(answer) {
	const shown = answer.strings.map((text) => shownName(text));
	/** @param {number[]} column */
	const texts = (column) =>
		column.map((index) => {
			if (!(index >= 0 && index < shown.length)) throw new Error(`flame answer: no string ${index}`);
			return shown[index];
		});
	const { name, module, kind, state } = answer.frames;
	return { name: texts(name), module: texts(module), kind: texts(kind), state: texts(state) };
}

/**
 * @param {Int32Array} depth
 * @returns {{parent: Int32Array, end: Int32Array}}
 */
function linkRows(depth) {
	const parent = new Int32Array(depth.length).fill(-1);
	const end = new Int32Array(depth.length).fill(depth.length);
	/** @type {number[]} rows from the root to the one before */
	const open = [];
	for (let row = 0; row < depth.length; row++) {
		if (depth[row] > open.length || depth[row] < (row ? 1 : 0)) throw new Error(`flame answer: row ${row} has no parent`);
		while (open.length > depth[row]) end[/** @type {number} */ (open.pop())] = row;
		if (row) parent[row] = open[open.length - 1];
		open.push(row);
	}
	return { parent, end };
}

/**
 * Rows from the root down to `row`, both included.
 * @param {Tree} tree
 * @param {number} row
 * @returns {number[]}
 */
export function pathTo(tree, row) {
	const path = [];
	for (let at = row; at >= 0; at = tree.parent[at]) path.push(at);
	return path.reverse();
}

/** @typedef {{low: Uint32Array, high: Uint32Array}} PathKeys halves of a 64-bit hash, by row */

/**
 * A key of the path of names that leads to each row: the same in the next answer although rows have moved, and short
 * enough for an address. Two FNV-1a hashes of 32 bits.
 * @param {Tree} tree
 * @returns {PathKeys}
 */
export function pathKeys(tree) {
	const { name, module } = tree.frames;
	const ownLow = name.map((text, index) => fnv1a(`${text}\0${module[index]}`, 0x811c9dc5));
	const ownHigh = name.map((text, index) => fnv1a(`${text}\0${module[index]}`, 0x9747b28c));
	const low = new Uint32Array(tree.size);
	const high = new Uint32Array(tree.size);
	for (let row = 0; row < tree.size; row++) {
		const above = tree.parent[row];
		low[row] = mix(above < 0 ? 0 : low[above], ownLow[tree.frame[row]]);
		high[row] = mix(above < 0 ? 0 : high[above], ownHigh[tree.frame[row]]);
	}
	return { low, high };
}

/**
 * The key of a row as text; "" for no row.
 * @param {PathKeys} keys
 * @param {number} row
 */
export function keyOf({ low, high }, row) {
	return row >= 0 && row < low.length ? hex(high[row]) + hex(low[row]) : "";
}

/**
 * The row with this key, -1 without one.
 * @param {PathKeys} keys
 * @param {string} key
 */
export function rowOf({ low, high }, key) {
	const [wantedHigh, wantedLow] = [parseInt(key.slice(0, 8), 16), parseInt(key.slice(8), 16)];
	for (let row = low.indexOf(wantedLow); row >= 0; row = low.indexOf(wantedLow, row + 1)) {
		if (high[row] === wantedHigh) return row;
	}
	return -1;
}

/**
 * @param {string} text
 * @param {number} seed
 */
export function fnv1a(text, seed = 0x811c9dc5) {
	let hash = seed;
	for (let index = 0; index < text.length; index++) hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193);
	return hash >>> 0;
}

/**
 * @param {number} above
 * @param {number} own
 */
function mix(above, own) {
	const hash = Math.imul((Math.imul(above, 31) + 0x9e3779b9) ^ own, 0x85ebca6b);
	return (hash ^ (hash >>> 15)) >>> 0;
}

/** @param {number} value */
function hex(value) {
	return value.toString(16).padStart(8, "0");
}

/**
 * @typedef {object} FunctionRow
 * @property {number} frame
 * @property {number} self
 * @property {number} total counted once a stack, however often the function stands in it
 */

/**
 * Functions at or below `top`, the most self time first. Roots and workloads are no functions.
 * @param {Tree} tree
 * @param {number} top
 * @returns {FunctionRow[]}
 */
export function functionsBelow(tree, top) {
	const count = tree.frames.name.length;
	const self = new Float64Array(count);
	const total = new Float64Array(count);
	const openUntil = new Int32Array(count); // end of the outermost open subtree of this frame
	for (let row = top; row < tree.end[top]; row++) {
		const frame = tree.frame[row];
		self[frame] += tree.self[row];
		if (row < openUntil[frame]) continue;
		total[frame] += tree.total[row];
		openUntil[frame] = tree.end[row];
	}
	/** @type {FunctionRow[]} */
	const rows = [];
	for (let frame = 0; frame < count; frame++) {
		const kind = tree.frames.kind[frame];
		if (total[frame] > 0 && kind !== "root" && kind !== "workload") {
			rows.push({ frame, self: self[frame], total: total[frame] });
		}
	}
	return rows.sort((a, b) => b.self - a.self || b.total - a.total || a.frame - b.frame);
}
