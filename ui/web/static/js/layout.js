/**
 * A call tree to rectangles: where every frame lies, and which of them a view has to draw. No canvas here.
 *
 * Frames of one depth lie side by side from left to right, so a level is a sorted array: the visible part of it is
 * found by binary search, and frames narrower than half a pixel are skipped over by another and merged. A pass
 * therefore costs by what is on the screen (two searches a pixel and level), not by the size of the tree.
 */

/** @typedef {import("./tree.js").Tree} Tree */

/**
 * @typedef {object} Layout positions are grouped by level, and sorted by `left` within one
 * @property {number} levels
 * @property {number} total width of the root
 * @property {Int32Array} start (levels + 1,) first position of each level
 * @property {Int32Array} row (n,) row of the tree at a position
 * @property {Int32Array} position (n,) position of a row
 * @property {Float64Array} left (n,) by position, in the tree's unit
 * @property {Float64Array} width (n,) by position
 */

/** @typedef {{left: number, right: number}} View the visible span, in the tree's unit */

/**
 * @typedef {object} Rects what to draw; entry `i` covers the positions `from[i]` to `to[i] - 1`, merged if several
 * @property {number[]} x in pixels
 * @property {number[]} width in pixels
 * @property {number[]} level
 * @property {number[]} from
 * @property {number[]} to
 */

export const MERGE_BELOW_PX = 0.5;

/**
 * @param {Tree} tree
 * @returns {Layout}
 */
export function layOut(tree) {
	const start = levelStarts(tree.depth);
	const next = start.slice();
	const row = new Int32Array(tree.size);
	const position = new Int32Array(tree.size);
	const left = new Float64Array(tree.size);
	const width = new Float64Array(tree.size);
	const cursor = new Float64Array(tree.size); // by row: where its next child begins
	for (let at = 0; at < tree.size; at++) {
		const above = tree.parent[at];
		const place = next[tree.depth[at]]++;
		row[place] = at;
		position[at] = place;
		width[place] = tree.total[at];
		left[place] = above < 0 ? 0 : cursor[above];
		cursor[at] = left[place];
		if (above >= 0) cursor[above] += tree.total[at];
	}
	return { levels: start.length - 1, total: tree.size ? tree.total[0] : 0, start, row, position, left, width };
}

/** @param {Int32Array} depth */
function levelStarts(depth) {
	let levels = 0;
	for (const value of depth) if (value >= levels) levels = value + 1;
	const start = new Int32Array(levels + 1);
	for (const value of depth) start[value + 1]++;
	for (let level = 0; level < levels; level++) start[level + 1] += start[level];
	return start;
}

/**
 * First index in `[low, high)` whose value is at least `wanted`; `high` when there is none.
 * @param {Float64Array} sorted
 * @param {number} wanted
 * @param {number} low
 * @param {number} high
 */
export function lowerBound(sorted, wanted, low, high) {
	while (low < high) {
		const middle = (low + high) >>> 1;
		if (sorted[middle] < wanted) low = middle + 1;
		else high = middle;
	}
	return low;
}

/**
 * Rectangles of the levels `firstLevel` to `lastLevel` inside `view`, on `pixels` of width.
 * @param {Layout} layout
 * @param {View} view
 * @param {number} pixels
 * @param {number} firstLevel
 * @param {number} lastLevel
 * @returns {Rects}
 */
export function visibleRects(layout, view, pixels, firstLevel, lastLevel) {
	/** @type {Rects} */
	const rects = { x: [], width: [], level: [], from: [], to: [] };
	if (!(view.right > view.left) || !(pixels > 0)) return rects;
	const last = Math.min(lastLevel, layout.levels - 1);
	for (let level = Math.max(0, firstLevel); level <= last; level++) addLevel(rects, layout, view, pixels, level);
	return rects;
}

/**
 * @param {Rects} rects
 * @param {Layout} layout
 * @param {View} view
 * @param {number} pixels
 * @param {number} level
 */
function addLevel(rects, layout, view, pixels, level) {
	const { left, width } = layout;
	const stop = layout.start[level + 1];
	const perPixel = (view.right - view.left) / pixels;
	const narrow = MERGE_BELOW_PX * perPixel;
	let at = firstVisible(layout, view.left, level);
	while (at < stop && left[at] < view.right) {
		if (width[at] >= narrow) {
			addRect(rects, layout, view, perPixel, level, at, at + 1);
			at++;
			continue;
		}
		// Everything that starts within this half pixel is narrow too, except perhaps the last.
		let to = lowerBound(left, left[at] + narrow, at + 1, stop);
		if (to - 1 > at && width[to - 1] >= narrow) to--;
		addMerged(rects, layout, view, perPixel, level, at, to);
		at = to;
	}
}

/**
 * @param {Layout} layout
 * @param {number} viewLeft
 * @param {number} level
 */
function firstVisible(layout, viewLeft, level) {
	const first = layout.start[level];
	const at = lowerBound(layout.left, viewLeft, first, layout.start[level + 1]);
	return at > first && layout.left[at - 1] + layout.width[at - 1] > viewLeft ? at - 1 : at;
}

/**
 * @param {Rects} rects
 * @param {Layout} layout
 * @param {View} view
 * @param {number} perPixel
 * @param {number} level
 * @param {number} from
 * @param {number} to
 */
function addRect(rects, layout, view, perPixel, level, from, to) {
	const begin = Math.max(view.left, layout.left[from]);
	const end = Math.min(view.right, layout.left[to - 1] + layout.width[to - 1]);
	if (end <= begin) return;
	rects.x.push((begin - view.left) / perPixel);
	rects.width.push((end - begin) / perPixel);
	rects.level.push(level);
	rects.from.push(from);
	rects.to.push(to);
}

/**
 * @param {Rects} rects
 * @param {Layout} layout
 * @param {View} view
 * @param {number} perPixel
 * @param {number} level
 * @param {number} from
 * @param {number} to
 */
function addMerged(rects, layout, view, perPixel, level, from, to) {
	const before = rects.x.length - 1;
	const isRun = before >= 0 && rects.level[before] === level && rects.to[before] === from && isMerged(layout, rects, before, perPixel);
	const beginPx = (layout.left[from] - view.left) / perPixel;
	if (!isRun || beginPx - (rects.x[before] + rects.width[before]) > MERGE_BELOW_PX) {
		addRect(rects, layout, view, perPixel, level, from, to);
		return;
	}
	const end = Math.min(view.right, layout.left[to - 1] + layout.width[to - 1]);
	rects.width[before] = (end - view.left) / perPixel - rects.x[before];
	rects.to[before] = to;
}

/**
 * @param {Layout} layout
 * @param {Rects} rects
 * @param {number} index
 * @param {number} perPixel
 */
function isMerged(layout, rects, index, perPixel) {
	return rects.to[index] - rects.from[index] > 1 || layout.width[rects.from[index]] < MERGE_BELOW_PX * perPixel;
}

/**
 * Row of the tree at `value` on `level`, -1 where there is none.
 * @param {Layout} layout
 * @param {number} value in the tree's unit
 * @param {number} level
 */
export function rowAt(layout, value, level) {
	if (level < 0 || level >= layout.levels) return -1;
	const first = layout.start[level];
	let at = lowerBound(layout.left, value, first, layout.start[level + 1]);
	if (at === layout.start[level + 1] || layout.left[at] > value) at--;
	if (at < first || value >= layout.left[at] + layout.width[at]) return -1;
	return layout.row[at];
}

/**
 * The span of a row.
 * @param {Layout} layout
 * @param {number} row
 * @returns {View}
 */
export function spanOf(layout, row) {
	const left = layout.left[layout.position[row]];
	return { left, right: left + layout.width[layout.position[row]] };
}
