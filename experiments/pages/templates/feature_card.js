/* One feature in words and numbers: facts, edges on either side, examples. */

const LISTED = 7;

// The principal components that a feature is made of: their numbers in a PCA run, and correlations.
const principalText = (node) => element("span", {title: "Correlation with principal components of this node layer",
  textContent: node.principal.map(([index, correlation]) => `no.\u00a0${index}:\u00a0${digits(correlation, 2)}`).join(", ")});

// Whether another rounding would have given the same feature.
function identifiedText(node) {
  if (!node.unsure) return `yes: moves by ${digits(node.moved, 1)}`;
  const moves = `moves by ${digits(node.moved, 2)} if rounded anew`;
  if (!node.together.length) return `no: ${moves}`;
  const first = node.together.slice(0, 5).join(", "), more = node.together.length > 5 ? " …" : "";
  return `only as a subspace, with ${first}${more}; ${moves}`;
}

function factList(run, node) {
  const found = node.examples, first = run.layers[node.layer].constant ? 1 : 0;
  const community = node.look.number === undefined ? ["none"] : [swatch(node), String(node.look.number)];
  const entries = [["layer", [node.layerName]], ["feature", [String(node.index)]],
    ["importance", [`${digits(node.importance)}`]],
    ...(node.constant ? [] : [["rank", [`${node.index - first + 1} of ${run.layers[node.layer].nodes.length - first}`]]]),
    ["community", community],
    ...(node.moved === null || node.constant ? [] : [["identified", [identifiedText(node)]]]),
    ...(node.principal.length ? [["PCA", [principalText(node)]]] : []),
    ...(found?.mean === undefined ? [] : [["mean", [digits(found.mean)]], ["deviation", [digits(found.deviation)]]])];
  return element("dl", {className: "facts"}, entries.flatMap(([name, value]) =>
    [element("dt", {textContent: name}), element("dd", {className: `fact-${name}`}, value)]));
}

function signOf(edge) {
  if (edge.slope === undefined) return element("span", {className: "sign"});
  const raises = edge.slope > 0;
  const text = `${raises ? "raises" : "lowers"}: slope ${digits(edge.slope, 3)}`;
  const made = named(element("span", {className: `sign ${raises ? "raises" : "lowers"}`, textContent: raises ? "+" : "−", title: text}), text);
  made.setAttribute("role", "img");
  return made;
}

// Strongest edges in one direction; `follow(node)` is what choosing a partner does, `isDrawn(edge)` whether the graph draws it.
function edgeTable(run, node, direction, {follow, isDrawn = () => true, withConstant = false}) {
  const incoming = direction === "incoming", pair = run.pairs[incoming ? node.layer - 1 : node.layer];
  if (!pair) return [];
  const [own, other] = incoming ? ["target", "source"] : ["source", "target"];
  const candidates = node.constant || withConstant ? [...pair.edges, ...pair.constantEdges] : pair.edges;
  const found = candidates.filter((edge) => edge[own] === node).sort((a, b) => b.strength - a.strength).slice(0, LISTED);
  const rows = found.map((edge) => {
    const partner = edge[other], share = shareOf(run, edge);
    const name = actionButton(partner.label, `${partner.layerName} ${partner.index}: ${partner.label}`, () => follow(partner));
    const cells = [element("td", {}, [element("div", {className: "partner"}, [signOf(edge), swatch(partner), name])]),
      element("td", {className: "strength", textContent: digits(edge.strength, 3)}),
      ...(run.signed ? [element("td", {className: "mean", textContent: edge.mean === undefined ? "" : digits(edge.mean, 2)}),
        element("td", {className: "share", textContent: share === null ? "" : percent(share)})] : [])];
    const row = element("tr", {className: isDrawn(edge) ? "" : "undrawn"}, cells);
    Object.assign(row.dataset, {layer: partner.layerName, feature: partner.index});
    return row;
  });
  const heads = [incoming ? "from" : "to", "E", ...(run.signed ? ["mean", "share"] : [])].map((text) =>
    element("th", {scope: "col", textContent: text}));
  const columns = ["", "number", ...(run.signed ? ["number", "share"] : [])].map((className) => element("col", {className}));
  return [element("table", {className: `edge-list ${direction}`}, [
    element("caption", {textContent: incoming ? `Strongest edges from ${pair.from}` : `Strongest edges to ${pair.to}`}),
    element("colgroup", {}, columns), element("thead", {}, [element("tr", {}, heads)]), element("tbody", {}, rows)])];
}

const edgeTables = (run, node, links, options) => [
  ...(links === "out" ? [] : edgeTable(run, node, "incoming", options)),
  ...(links === "in" ? [] : edgeTable(run, node, "outgoing", options))];

const opened = new Map(); // which sections the reader has opened or closed, whatever the feature

function foldedSection({id, title, open, body}) {
  const made = element("details", {className: `folded section-${id}`, open: opened.get(id) ?? open}, [element("summary", {textContent: title}), body]);
  made.querySelector("summary").addEventListener("click", () => opened.set(id, !made.open));
  return made;
}

// `buttons`: beside the name; `before`: elements between facts and examples.
function featureCard(run, node, {prefix = "", buttons = [], before = []}) {
  const card = named(element("article", {className: "feature-card"}, [
    element("div", {className: "feature-head"}, [element("h2", {textContent: prefix + node.label}), ...buttons]),
    element("div", {className: "summary-row"}, [factList(run, node), ...directionImage(node)]),
    ...before, ...exampleSections(run, node).map(foldedSection)]), `${node.layerName} ${node.index}: ${node.label}`);
  Object.assign(card.dataset, {layer: node.layerName, feature: node.index});
  return card;
}
