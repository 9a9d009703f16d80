import assert from "node:assert/strict";
import { test } from "node:test";
import { decodeTree, functionsBelow, keyOf, pathKeys, pathTo, rowOf } from "../../ui/web/static/js/tree.js";
import { answerOf, SMALL } from "./sample.js";

const names = (tree, rows) => rows.map((row) => tree.frames.name[tree.frame[row]]);

test("totals, parents and subtree ends come out of depth and self alone", () => {
	const tree = decodeTree(answerOf(SMALL));
	assert.deepEqual([...tree.total], [100, 100, 50, 30, 40, 15, 25]);
	assert.deepEqual([...tree.parent], [-1, 0, 1, 2, 1, 4, 4]);
	assert.deepEqual([...tree.end], [7, 7, 4, 4, 7, 6, 7]);
});

test("a path leads from the root to the row", () => {
	const tree = decodeTree(answerOf(SMALL));
	assert.deepEqual(names(tree, pathTo(tree, 5)), ["all", "main", "serve", "parse"]);
});

test("a function is counted once a stack, however deep it recurs", () => {
	const tree = decodeTree(answerOf("all 0\n\tf 1\n\t\tg 2\n\t\t\tf 4\n\tf 8\n"));
	const f = functionsBelow(tree, 0).find(({ frame }) => tree.frames.name[frame] === "f");
	assert.deepEqual([f.self, f.total], [13, 15]);
});

test("functions below a row leave out what is elsewhere, the most self time first", () => {
	const tree = decodeTree(answerOf(SMALL));
	const rows = functionsBelow(tree, 4).map(({ frame, self, total }) => [tree.frames.name[frame], self, total]);
	assert.deepEqual(rows, [["write", 25, 25], ["parse", 15, 15], ["serve", 0, 40]]);
});

test("path keys follow the path of names, not the row", () => {
	const before = decodeTree(answerOf(SMALL));
	const after = decodeTree(answerOf("all 0\n\taccept 5\n\tmain 10\n\t\tserve 0\n\t\t\twrite 9 kernel kernel\n"));
	const keys = pathKeys(before);
	const texts = Array.from({ length: before.size }, (_, row) => keyOf(keys, row));
	assert.equal(new Set(texts).size, before.size);
	assert.match(texts[6], /^[0-9a-f]{16}$/);
	assert.equal(rowOf(pathKeys(after), texts[6]), 4);
	assert.equal(rowOf(pathKeys(after), texts[2]), -1, "main > parse is gone");
	assert.equal(rowOf(keys, ""), -1);
	assert.equal(keyOf(keys, -1), "");
});

test("an answer whose columns disagree is refused", () => {
	const broken = (change) => {
		const answer = answerOf(SMALL);
		change(answer);
		return () => decodeTree(answer);
	};
	assert.throws(broken((answer) => answer.tree.self.pop()), /different length/);
	assert.throws(broken((answer) => (answer.tree.depth[3] = 5)), /row 3 has no parent/);
	assert.throws(broken((answer) => (answer.tree.depth[3] = 0)), /row 3 has no parent/);
	assert.throws(broken((answer) => (answer.tree.frame[3] = 99)), /no frame 99/);
	assert.throws(broken((answer) => (answer.frames.name[0] = -1)), /no string -1/);
});
