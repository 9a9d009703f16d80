/**
 * Rectangles to pixels on a canvas: fills, cut names, marks. Reads no DOM and handles no event.
 */

/** @typedef {import("./tree.js").Tree} Tree */
/** @typedef {import("./layout.js").Layout} Layout */
/** @typedef {import("./layout.js").Rects} Rects */
/** @typedef {import("./search.js").Matches} Matches */
/** @typedef {import("./palette.js").Theme} Theme */

/**
 * @typedef {object} Scene everything that a picture depends on; lengths in CSS pixels
 * @property {Tree} tree
 * @property {Layout} layout
 * @property {Rects} rects
 * @property {string[]} colours by frame
 * @property {Theme} theme
 * @property {number} width
 * @property {number} height
 * @property {number} rowHeight
 * @property {number} fontSize
 * @property {number} ratio device pixels a CSS pixel
 * @property {(level: number) => number} levelTop
 * @property {Matches | null} matches
 * @property {number} zoomLevel levels above are ancestors of the zoom, drawn faint
 */

/**
 * @typedef {object} Marks what is drawn over the picture, on a canvas of its own
 * @property {number} selected row, -1 for none
 * @property {number} hovered row, -1 for none
 * @property {{from: number, to: number} | null} brush span being dragged, in pixels
 */

export const FONT = "system-ui, 'Segoe UI', 'Noto Sans', 'DejaVu Sans', sans-serif";
const TEXT_FROM_PX = 28; // narrower holds less than two letters and an ellipsis
const PADDING_PX = 4;
const DIMMED = 0.22;
const ANCESTOR = 0.55;

/**
 * @param {CanvasRenderingContext2D} context
 * @param {Scene} scene
 * @param {Map<string, number>} textWidths widths of whole names in this font, kept between pictures
 */
export function drawFlame(context, scene, textWidths) {
	context.setTransform(scene.ratio, 0, 0, scene.ratio, 0, 0);
	context.fillStyle = scene.theme.back;
	context.fillRect(0, 0, scene.width, scene.height);
	drawRects(context, scene);
	drawNames(context, scene, textWidths);
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {Scene} scene the picture below
 * @param {Marks} marks
 */
export function drawMarks(context, scene, { selected, hovered, brush }) {
	context.setTransform(scene.ratio, 0, 0, scene.ratio, 0, 0);
	context.clearRect(0, 0, scene.width, scene.height);
	outline(context, scene, hovered, 1, scene.theme.text);
	outline(context, scene, selected, 2, scene.theme.accent);
	if (brush) drawBrush(context, scene, brush);
}

/**
 * Edges on device pixels: a gap of one between frames stays a gap of one.
 * @param {number} value
 * @param {number} ratio
 */
export function snap(value, ratio) {
	return Math.round(value * ratio) / ratio;
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {Scene} scene
 */
function drawRects(context, scene) {
	const { rects, ratio } = scene;
	const hair = 1 / ratio;
	for (let index = 0; index < rects.x.length; index++) {
		const left = snap(rects.x[index], ratio);
		const right = snap(rects.x[index] + rects.width[index], ratio);
		const top = snap(scene.levelTop(rects.level[index]), ratio);
		context.globalAlpha = strength(scene, index);
		context.fillStyle = scene.colours[scene.tree.frame[scene.layout.row[widest(scene.layout, rects, index)]]];
		context.fillRect(left, top, Math.max(hair, right - left - (right - left > 3 * hair ? hair : 0)), scene.rowHeight - hair);
	}
	context.globalAlpha = 1;
}

/**
 * A merged rectangle takes the colour of its first frames' widest, so that it does not flicker from noise.
 * @param {Layout} layout
 * @param {Rects} rects
 * @param {number} index
 */
function widest(layout, rects, index) {
	let best = rects.from[index];
	const stop = Math.min(rects.to[index], best + 16);
	for (let at = best + 1; at < stop; at++) if (layout.width[at] > layout.width[best]) best = at;
	return best;
}

/**
 * @param {Scene} scene
 * @param {number} index
 */
function strength(scene, index) {
	const { rects, matches } = scene;
	if (matches && matches.before[rects.to[index]] === matches.before[rects.from[index]]) return DIMMED;
	return rects.level[index] < scene.zoomLevel && !matches ? ANCESTOR : 1;
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {Scene} scene
 * @param {Map<string, number>} textWidths
 */
function drawNames(context, scene, textWidths) {
	const { rects, tree, layout } = scene;
	context.font = `${scene.fontSize}px ${FONT}`;
	context.textBaseline = "middle";
	context.direction = "ltr";
	context.fillStyle = scene.theme.text;
	for (let index = 0; index < rects.x.length; index++) {
		if (rects.width[index] < TEXT_FROM_PX || rects.to[index] - rects.from[index] !== 1) continue;
		const frame = tree.frame[layout.row[rects.from[index]]];
		const text = fitText(context, tree.frames.name[frame], rects.width[index] - 2 * PADDING_PX, textWidths);
		if (!text) continue;
		context.globalAlpha = strength(scene, index) < 0.5 ? 0.5 : 1;
		const middle = scene.levelTop(rects.level[index]) + scene.rowHeight / 2;
		context.fillText(text, snap(rects.x[index], scene.ratio) + PADDING_PX, snap(middle, scene.ratio));
	}
	context.globalAlpha = 1;
}

/**
 * `text`, cut with an ellipsis where it is wider than `available`; "" where nothing useful fits.
 * @param {{measureText: (text: string) => {width: number}}} context
 * @param {string} text
 * @param {number} available in CSS pixels
 * @param {Map<string, number>} textWidths
 */
export function fitText(context, text, available, textWidths) {
	const head = text.length > 400 ? text.slice(0, 400) : text; // wider than any screen at any legible size
	let width = textWidths.get(head);
	if (width === undefined) {
		width = context.measureText(head).width;
		textWidths.set(head, width);
	}
	if (width <= available && head === text) return text;
	// Guess by the mean letter, then shorten until it fits: two or three measurements in practice.
	const letters = Array.from(head);
	let length = Math.min(letters.length, Math.floor((available / width) * letters.length) + 1);
	for (; length > 0; length--) {
		const cut = letters.slice(0, length).join("") + "…";
		if (context.measureText(cut).width <= available) return length > 1 ? cut : "";
	}
	return "";
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {Scene} scene
 * @param {number} row
 * @param {number} thickness
 * @param {string} colour
 */
function outline(context, scene, row, thickness, colour) {
	if (row < 0) return;
	const at = scene.layout.position[row];
	const index = scene.rects.from.findIndex((from, rect) => from <= at && at < scene.rects.to[rect]);
	if (index < 0) return;
	context.strokeStyle = colour;
	context.lineWidth = thickness;
	const width = Math.max(thickness, scene.rects.width[index] - thickness);
	const top = scene.levelTop(scene.rects.level[index]);
	context.strokeRect(scene.rects.x[index] + thickness / 2, top + thickness / 2, width, scene.rowHeight - thickness);
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {Scene} scene
 * @param {{from: number, to: number}} brush
 */
function drawBrush(context, scene, brush) {
	context.fillStyle = scene.theme.accent;
	context.globalAlpha = 0.18;
	context.fillRect(Math.min(brush.from, brush.to), 0, Math.abs(brush.to - brush.from), scene.height);
	context.globalAlpha = 1;
}
