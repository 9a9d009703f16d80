import assert from "node:assert/strict";
import { test } from "node:test";
import { layOut, lowerBound, rowAt, spanOf, visibleRects } from "../../ui/web/static/js/layout.js";
import { decodeTree } from "../../ui/web/static/js/tree.js";
import { answerOf, SMALL, wideAnswer } from "./sample.js";

const whole = (layout) => ({ left: 0, right: layout.total });

test("children stand under their parent, in order, side by side", () => {
	const layout = layOut(decodeTree(answerOf(SMALL)));
	assert.equal(layout.levels, 4);
	assert.deepEqual([2, 3, 4, 5, 6].map((row) => Object.values(spanOf(layout, row))), [[0, 50], [0, 30], [50, 90], [50, 65], [65, 90]]);
});

test("every level is sorted and no frame leaves its parent", () => {
	const tree = decodeTree(wideAnswer(6, 5));
	const layout = layOut(tree);
	for (let level = 0; level < layout.levels; level++) {
		for (let at = layout.start[level] + 1; at < layout.start[level + 1]; at++) {
			assert.ok(layout.left[at - 1] + layout.width[at - 1] <= layout.left[at]);
		}
	}
	for (let row = 1; row < tree.size; row++) {
		const [own, above] = [spanOf(layout, row), spanOf(layout, tree.parent[row])];
		assert.ok(own.left >= above.left && own.right <= above.right);
	}
});

test("a point finds its frame, and nothing where there is none", () => {
	const layout = layOut(decodeTree(answerOf(SMALL)));
	assert.equal(rowAt(layout, 0, 0), 0);
	assert.equal(rowAt(layout, 49.9, 2), 2);
	assert.equal(rowAt(layout, 50, 2), 4);
	assert.equal(rowAt(layout, 95, 2), -1);
	assert.equal(rowAt(layout, 40, 3), -1);
	assert.equal(rowAt(layout, 40, 9), -1);
});

test("a view cuts frames at its edges and leaves out the rest", () => {
	const layout = layOut(decodeTree(answerOf(SMALL)));
	const rects = visibleRects(layout, { left: 40, right: 60 }, 200, 0, 9);
	const seen = rects.x.map((x, index) => [layout.row[rects.from[index]], x, rects.width[index]]);
	assert.deepEqual(seen, [[0, 0, 200], [1, 0, 200], [2, 0, 100], [4, 100, 100], [5, 100, 100]]);
});

test("only the levels asked for are drawn, and an empty view draws nothing", () => {
	const layout = layOut(decodeTree(answerOf(SMALL)));
	assert.deepEqual([...new Set(visibleRects(layout, whole(layout), 100, 1, 2).level)], [1, 2]);
	assert.equal(visibleRects(layout, { left: 5, right: 5 }, 100, 0, 9).x.length, 0);
	assert.equal(visibleRects(layout, whole(layout), 0, 0, 9).x.length, 0);
});

test("narrow frames merge: few rectangles, and still every position is covered once", () => {
	const layout = layOut(decodeTree(wideAnswer(7, 7))); // 137,257 frames, 117,649 of them in one level
	const rects = visibleRects(layout, whole(layout), 1000, 0, 9);
	assert.ok(rects.x.length < 2500, `${rects.x.length} rectangles`);
	const covered = new Uint8Array(layout.row.length);
	rects.from.forEach((from, index) => covered.fill(1, from, rects.to[index]));
	assert.equal(covered.indexOf(0), -1);
	for (let index = 1; index < rects.x.length; index++) {
		if (rects.level[index] === rects.level[index - 1]) assert.equal(rects.from[index], rects.to[index - 1]);
	}
});

test("a wide frame behind narrow ones is not swallowed", () => {
	const narrow = Array.from({ length: 50 }, (_, index) => `\tn${index} 0.01\n`).join("");
	const tree = decodeTree(answerOf(`all 0\n${narrow}\twide 99.5\n`));
	const layout = layOut(tree);
	const rects = visibleRects(layout, whole(layout), 100, 1, 1);
	const last = rects.x.length - 1;
	assert.equal(rects.to[last] - rects.from[last], 1);
	assert.equal(tree.frames.name[tree.frame[layout.row[rects.from[last]]]], "wide");
	assert.ok(rects.x.length <= 3);
});

test("the first of equal or greater values is found", () => {
	const sorted = Float64Array.from([1, 3, 3, 7]);
	assert.deepEqual([0, 3, 4, 8].map((wanted) => lowerBound(sorted, wanted, 0, 4)), [0, 1, 3, 4]);
});
