import assert from "node:assert/strict";
import { test } from "node:test";
import { stack } from "../../ui/web/static/js/chart.js";
import { fitText } from "../../ui/web/static/js/draw.js";
import { cores, count, duration, percent, shownName } from "../../ui/web/static/js/format.js";
import { frameColours, ModuleSlots, THEMES } from "../../ui/web/static/js/palette.js";
import { formatState, isLive, otherRange, parseState, spanMs } from "../../ui/web/static/js/state.js";
import { decodeTree } from "../../ui/web/static/js/tree.js";
import { answerOf, SMALL } from "./sample.js";

test("what cannot be seen in a name is made visible, and length is bounded", () => {
	assert.equal(shownName("safe\u202Eexe.cod"), "safe⟨U+202E⟩exe.cod");
	assert.equal(shownName("a\nb\u0000c\u200b"), "a⟨U+000A⟩b⟨U+0000⟩c⟨U+200B⟩");
	assert.equal(shownName("std::vector<int, λ>"), "std::vector<int, λ>");
	assert.ok(shownName("x".repeat(10_000)).length < 4200);
});

test("numbers are short and never claim more than is known", () => {
	assert.deepEqual([0, 0.00001, 3.14159, 12.345, 100].map((part) => percent(part, 100)), ["0 %", "<0.01 %", "3.14 %", "12.3 %", "100 %"]);
	assert.equal(percent(1, 0), "–");
	assert.deepEqual([0, 950, 1.5e6, 9.999e9, 7.2e12].map(duration), ["0", "950 ns", "1.50 ms", "10.00 s", "2.00 h"]);
	assert.deepEqual([0, 0.0004, 0.25, 1.5, 32].map(cores), ["0", "<0.001", "0.250", "1.50", "32.0"]);
	assert.equal(count(1234567), "1\u202f234\u202f567");
});

test("the address holds the whole state and comes back", () => {
	const state = parseState("?since=-1h&workload=a%26b%3Cimg%3E&zoom=0123456789abcdef&search=%2Fx%2F&view=flame&colour=kind&from=5&to=9&node=n");
	assert.deepEqual(parseState(formatState(state)), state);
	assert.equal(state.workload, "a&b<img>");
	assert.equal(formatState(parseState("")), "?");
});

test("nonsense in the address falls back to defaults", () => {
	const state = parseState("?from=9&to=5&zoom=%3Cscript%3E&view=x&colour=y");
	assert.deepEqual([state.from, state.to, state.zoom, state.isFlame, state.colourBy], [0, 0, "", false, "module"]);
});

test("live is a relative range without an end", () => {
	assert.ok(isLive(parseState("")));
	assert.ok(isLive(parseState("?since=-6h")));
	assert.ok(!isLive(parseState("?since=2026-01-01T00:00:00Z&until=2026-01-01T01:00:00Z")));
	assert.ok(!isLive(parseState("?since=2026-01-01T00:00:00Z")));
	assert.equal(spanMs("-6h"), 6 * 3.6e6);
});

test("a range moves and grows around its middle", () => {
	const range = { since_ms: 1_000_000_000_000, until_ms: 1_000_000_060_000 };
	assert.deepEqual(otherRange(range, 2, 0), { since: "2001-09-09T01:46:10Z", until: "2001-09-09T01:48:10Z" });
	assert.deepEqual(otherRange(range, 1, -0.5), { since: "2001-09-09T01:46:10Z", until: "2001-09-09T01:47:10Z" });
});

test("stacked lines add up and keep gaps as gaps", () => {
	const series = { step_ms: 10_000, times_ms: [0, 10_000], names: ["a", "b"], cores: [[1, null], [0.5, null]] };
	assert.deepEqual(stack({ series }), [[5, 15], [1.5, null], [0.5, null]]);
});

test("names are cut with an ellipsis to what fits", () => {
	const context = { measureText: (text) => ({ width: Array.from(text).length * 7 }) };
	const fit = (text, available) => fitText(context, text, available, new Map());
	assert.equal(fit("main", 28), "main");
	assert.equal(fit("processCommand", 56), "process…");
	assert.equal(fit("processCommand", 10), "");
	assert.equal(fit("😀😀😀😀", 21), "😀😀…", "no half of a surrogate pair");
});

test("colours: kernel blue, user never blue, nameless pale, and stable when the order changes", () => {
	const tree = decodeTree(answerOf(`${SMALL}\t\tapp+0x10 1 app user nosymbol\n`));
	const slots = new ModuleSlots();
	slots.assign(tree);
	const colours = frameColours(tree, slots, "module", THEMES.light);
	const colour = (name) => colours[tree.frames.name.indexOf(name)];
	const chroma = (text) => Number(/ ([\d.]+) \d+\)$/.exec(text)[1]);
	const hue = (text) => Number(/ (\d+)\)$/.exec(text)[1]);
	assert.equal(hue(colour("write")), 250);
	assert.ok(hue(colour("parse")) < 200 && hue(colour("read")) < 200);
	assert.notEqual(hue(colour("parse")), hue(colour("read")));
	assert.ok(chroma(colour("app+0x10")) < chroma(colour("parse")) / 2);
	const later = decodeTree(answerOf("all 0\n\tread 90 libc.so.6\n\tparse 1\n"));
	slots.assign(later);
	assert.equal(frameColours(later, slots, "module", THEMES.light)[1], colour("read"));
});
