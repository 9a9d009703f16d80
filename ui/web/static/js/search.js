/**
 * Search text to matching rows and the share of the profile they stand for. No fuzzy match: text must occur as typed,
 * without regard to case unless it has a capital; `/.../` is a regular expression, `/.../i` one without case.
 */

/** @typedef {import("./tree.js").Tree} Tree */
/** @typedef {import("./layout.js").Layout} Layout */
/** @typedef {import("./layout.js").View} View */

/**
 * @typedef {object} Matches
 * @property {Uint8Array} isMatch by row
 * @property {Int32Array} before (n + 1,) by position of the layout: matches left of it, so that a span is tested in O(1)
 * @property {number[]} rows in reading order
 * @property {number[]} outermost rows without a match above them: their widths add up without counting twice
 */

/**
 * @param {string} query
 * @returns {(name: string) => boolean} refuses an invalid expression with `SyntaxError`
 */
export function parseQuery(query) {
	const expression = /^\/(.+)\/(i?)$/su.exec(query);
	if (expression) {
		const pattern = new RegExp(expression[1], expression[2]);
		return (name) => pattern.test(name);
	}
	if (query !== query.toLowerCase()) return (name) => name.includes(query);
	return (name) => name.toLowerCase().includes(query);
}

/**
 * @param {Tree} tree
 * @param {Layout} layout
 * @param {(name: string) => boolean} isWanted tested on the name and on `module!name`
 * @returns {Matches}
 */
export function findMatches(tree, layout, isWanted) {
	const { name, module, kind } = tree.frames;
	const frameMatches = name.map((text, index) => kind[index] !== "root" && (isWanted(text) || isWanted(`${module[index]}!${text}`)));
	return collectMatches(tree, layout, (frame) => frameMatches[frame]);
}

/**
 * @param {Tree} tree
 * @param {Layout} layout
 * @param {(frame: number) => boolean} isFrameMatch
 * @returns {Matches}
 */
export function collectMatches(tree, layout, isFrameMatch) {
	const isMatch = new Uint8Array(tree.size);
	const rows = [];
	const outermost = [];
	let coveredUntil = 0;
	for (let row = 0; row < tree.size; row++) {
		if (!isFrameMatch(tree.frame[row])) continue;
		isMatch[row] = 1;
		rows.push(row);
		if (row < coveredUntil) continue;
		outermost.push(row);
		coveredUntil = tree.end[row];
	}
	const before = new Int32Array(tree.size + 1);
	for (let at = 0; at < tree.size; at++) before[at + 1] = before[at] + isMatch[layout.row[at]];
	return { isMatch, before, rows, outermost };
}

/**
 * How much of `view` is below or at a match: the value of all stacks that contain one.
 * @param {Layout} layout
 * @param {Matches} matches
 * @param {View} view
 */
export function matchedValue(layout, matches, view) {
	let sum = 0;
	for (const row of matches.outermost) {
		const at = layout.position[row];
		const overlap = Math.min(view.right, layout.left[at] + layout.width[at]) - Math.max(view.left, layout.left[at]);
		if (overlap > 0) sum += overlap;
	}
	return sum;
}

/**
 * The match that follows `row` in reading order (`step` 1) or precedes it (-1), around the ends; -1 without matches.
 * @param {Matches} matches
 * @param {number} row
 * @param {1 | -1} step
 */
export function neighbourMatch(matches, row, step) {
	const { rows } = matches;
	if (!rows.length) return -1;
	if (step > 0) return rows.find((match) => match > row) ?? rows[0];
	return rows.findLast((match) => match < row) ?? rows[rows.length - 1];
}
