// Small call trees written as text, for the tests of the viewer's modules.

/**
 * One line a frame, indented by tabs: `name self [module [kind [state]]]`. Samples are one a unit of self value.
 * @param {string} text
 */
export function answerOf(text) {
	const strings = [];
	const position = (value) => (strings.includes(value) ? strings.indexOf(value) : strings.push(value) - 1);
	const tree = { depth: [], frame: [], self: [], samples: [] };
	const frames = { name: [], module: [], kind: [], state: [] };
	const known = new Map();
	for (const line of text.split("\n").filter((entry) => entry.trim())) {
		const depth = line.length - line.replace(/^\t+/, "").length;
		const [name, self, module = "app", kind = depth ? "user" : "root", state = "ok"] = line.trim().split(" ");
		const key = `${name} ${module} ${kind}`;
		if (!known.has(key)) {
			known.set(key, frames.name.length);
			frames.name.push(position(name));
			frames.module.push(position(module));
			frames.kind.push(position(kind));
			frames.state.push(position(state));
		}
		tree.depth.push(depth);
		tree.frame.push(known.get(key));
		tree.self.push(Number(self));
		tree.samples.push(Number(self));
	}
	return { unit: "ns", tree, frames, strings };
}

export const SMALL = `
all 0
	main 10
		parse 20
			read 30 libc.so.6
		serve 0
			parse 15
			write 25 kernel kernel
`;

/**
 * A full tree of `levels` levels in which every frame has `children` children; every leaf weighs 1.
 * @param {number} levels
 * @param {number} children
 */
export function wideAnswer(levels, children) {
	const tree = { depth: [], frame: [], self: [], samples: [] };
	const add = (depth) => {
		const isLeaf = depth === levels - 1;
		tree.depth.push(depth);
		tree.frame.push(tree.frame.length % 1000);
		tree.self.push(isLeaf ? 1 : 0);
		tree.samples.push(1);
		if (!isLeaf) for (let child = 0; child < children; child++) add(depth + 1);
	};
	add(0);
	const numbers = Array.from({ length: 1000 }, (_, index) => index);
	const texts = [...numbers.map((number) => `function_${number}`), "app", "user", "ok"];
	const frames = { name: numbers, module: numbers.map(() => 1000), kind: numbers.map(() => 1001), state: numbers.map(() => 1002) };
	return { unit: "ns", tree, frames, strings: texts };
}
