import assert from "node:assert/strict";
import { test } from "node:test";
import { layOut, spanOf } from "../../ui/web/static/js/layout.js";
import { findMatches, matchedValue, neighbourMatch, parseQuery } from "../../ui/web/static/js/search.js";
import { decodeTree } from "../../ui/web/static/js/tree.js";
import { answerOf, SMALL } from "./sample.js";

const tree = decodeTree(answerOf(SMALL));
const layout = layOut(tree);
const find = (query) => findMatches(tree, layout, parseQuery(query));

test("text matches anywhere, without case unless it has a capital", () => {
	assert.ok(parseQuery("eval")("_PyEval_Frame"));
	assert.ok(parseQuery("Eval")("_PyEval_Frame"));
	assert.ok(!parseQuery("EVAL")("_PyEval_Frame"));
	assert.ok(!parseQuery("pef")("_PyEval_Frame"), "no fuzzy match");
});

test("text between slashes is an expression; text that looks like one is not", () => {
	assert.ok(parseQuery("/^py.*t$/i")("PyEval_Start"));
	assert.ok(!parseQuery("/^py.*t$/")("PyEval_Start"));
	assert.ok(parseQuery("operator()")("Foo::operator()(int)"));
	assert.throws(() => parseQuery("/(/"), SyntaxError);
});

test("matched share counts a stack once, of all and of a zoom", () => {
	const parse = find("parse");
	assert.deepEqual(parse.rows, [2, 5]);
	assert.equal(matchedValue(layout, parse, spanOf(layout, 0)), 65);
	assert.equal(matchedValue(layout, parse, spanOf(layout, 4)), 15);
	assert.deepEqual(find("a").outermost, [1], "main holds parse and read");
});

test("a module can be searched, the root cannot", () => {
	assert.deepEqual(find("libc.so.6!").rows, [3]);
	assert.deepEqual(find("all").rows, []);
});

test("spans of the layout know whether a match lies in them", () => {
	const { before, isMatch } = find("write");
	const at = layout.position[6];
	assert.equal(before[at + 1] - before[at], 1);
	assert.equal(before[at], 0);
	assert.equal(isMatch[6], 1);
});

test("next and previous go around", () => {
	const parse = find("parse");
	assert.deepEqual([-1, 2, 5].map((row) => neighbourMatch(parse, row, 1)), [2, 5, 2]);
	assert.deepEqual([-1, 2, 5].map((row) => neighbourMatch(parse, row, -1)), [5, 5, 2]);
	assert.equal(neighbourMatch(find("nothing"), 3, 1), -1);
});
